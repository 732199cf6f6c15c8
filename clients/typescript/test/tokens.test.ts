import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import { AuthenticationError, Client, InvalidResponseError, NotFoundError, ServerError } from "../src/index.js";
import { useStub } from "./stub.js";

const ID = "9e3ce3a8-9b7c-4c35-9a3f-6e0a4b0a7a51";
const MANY = 8;
const stub = useStub();

function client(): Client {
    return new Client(stub.url, "id_test", "secret_test", { retries: { backoffSeconds: 0.001 } });
}

test("one token serves many requests", async () => {
    const ctms = client();
    for (let number = 0; number < 3; number++) await ctms.contacts.find({ sfdc_id: "1" });

    assert.deepEqual(stub.sentTokens, ["t1", "t1", "t1"]);
    assert.equal(stub.tokenRequests.length, 1);
    const basic = Buffer.from("id_test:secret_test").toString("base64");
    assert.equal(stub.tokenRequests[0]?.headers.authorization, `Basic ${basic}`);
    assert.equal(stub.tokenRequests[0]?.body, "grant_type=client_credentials");
});

for (const [lifetime, keptFor] of [
    [3600, 3570],
    [40, 30],
] as const) {
    test(`a token of ${lifetime} seconds is renewed before it expires`, async (context) => {
        let now = 1000;
        context.mock.method(performance, "now", () => now * 1000);
        stub.expiresIn = lifetime;
        const ctms = client();
        for (const later of [0, keptFor - 1, keptFor + 1]) {
            now = 1000 + later;
            await ctms.contacts.find({ sfdc_id: "1" });
        }

        assert.deepEqual(stub.sentTokens, ["t1", "t1", "t2"]);
    });
}

test("a refused token is renewed once, and the body is sent again", async () => {
    stub.replies = [{ status: 401 }, { status: 404 }];
    const patch = { email: { first_name: "Ada" } };

    await assert.rejects(client().contacts.update(ID, patch), NotFoundError);

    assert.deepEqual(stub.sentTokens, ["t1", "t2"]);
    assert.deepEqual(
        stub.requests.map((one) => JSON.parse(one.body) as unknown),
        [patch, patch],
    );
});

test("a client without access is refused", async () => {
    stub.replies = [{ status: 401, body: { detail: "Could not validate credentials" } }];

    await assert.rejects(client().contacts.find({ sfdc_id: "1" }), AuthenticationError);

    assert.deepEqual(stub.sentTokens, ["t1", "t2"]);
});

test("wrong credentials", async () => {
    stub.tokenReplies = [{ status: 400, body: { detail: "Incorrect username or password", error: "invalid_client" } }];
    const ctms = client();

    await assert.rejects(ctms.contacts.find({ sfdc_id: "1" }), (error) => {
        assert(error instanceof AuthenticationError);
        assert.equal(error.message, "400: Incorrect username or password");
        assert.equal(error.body["error"], "invalid_client");
        return true;
    });

    assert.equal(stub.requests.length, 0);
    assert.equal(stub.tokenRequests.length, 1);
    assert.deepEqual(await ctms.contacts.find({ sfdc_id: "1" }), []); // the next request may succeed
    assert(!inspect(ctms, { depth: 9, showHidden: true }).includes("secret_test"));
});

test("a token request is repeated", async () => {
    stub.tokenReplies = [{ status: 429, headers: { "Retry-After": "0" } }, { status: 503 }, { closes: "at once" }];

    assert.deepEqual(await client().contacts.find({ sfdc_id: "1" }), []);

    assert.equal(stub.tokenRequests.length, 4);
});

test("a token request fails", async () => {
    const ctms = client();
    stub.tokenReplies = [{ status: 500 }, { body: { token: "t" } }, { body: "<html>" }];

    await assert.rejects(ctms.contacts.find({ sfdc_id: "1" }), ServerError);
    await assert.rejects(ctms.contacts.find({ sfdc_id: "1" }), InvalidResponseError);
    await assert.rejects(ctms.contacts.find({ sfdc_id: "1" }), InvalidResponseError);
});

test("requests share a token and its renewal", async () => {
    let waiting = 0;
    let open = (): void => undefined;
    const all = new Promise<void>((resolve) => (open = resolve));
    stub.barrier = async ({ headers }) => {
        if (headers.authorization !== "Bearer t1") return undefined;
        if (++waiting === MANY) open();
        await all; // all of the first requests have been sent with the token that is refused
        return { status: 401 };
    };
    const ctms = client();

    const found = await Promise.all(Array.from({ length: MANY }, () => ctms.contacts.find({ sfdc_id: "1" })));

    assert.deepEqual(found, Array(MANY).fill([]));
    assert.equal(stub.tokenRequests.length, 2);
});
