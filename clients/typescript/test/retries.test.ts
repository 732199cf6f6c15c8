import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, CtmsError, type Retries, ServerError, TooManyRequestsError, TransportError } from "../src/index.js";
import { DEFAULT_RETRIES, delayBeforeRetry, retryAfter } from "../src/retries.js";
import { type Reply, useStub } from "./stub.js";

const ID = "9e3ce3a8-9b7c-4c35-9a3f-6e0a4b0a7a51";
const DONE: Reply = { status: 404, body: { detail: "Unknown email_id" } };
const EMAIL = { primary_email: "ada@example.com", email_id: ID };
const stub = useStub();

function client(retries: Partial<Retries> = {}, timeoutSeconds = 60): Client {
    return new Client(stub.url, "id_test", "secret_test", {
        retries: { backoffSeconds: 0.001, ...retries },
        timeoutSeconds,
    });
}

const CALLS: Record<string, (ctms: Client, ifMatch?: string) => Promise<unknown>> = {
    GET: (ctms) => ctms.contacts.get(ID),
    POST: (ctms) => ctms.contacts.create({ email: { primary_email: "ada@example.com" } }),
    PUT: (ctms, ifMatch) => ctms.contacts.replace(ID, { email: EMAIL }, ifMatch ? { ifMatch } : {}),
    PATCH: (ctms) => ctms.contacts.update(ID, { email: { first_name: "Ada" } }),
    DELETE: (ctms, ifMatch) => ctms.contacts.delete("ada@example.com", ifMatch ? { ifMatch } : {}),
};

async function attempts(method: string, replies: Reply[], ifMatch?: string): Promise<number> {
    stub.replies = replies;
    await assert.rejects(CALLS[method]!(client(), ifMatch), CtmsError);
    assert.deepEqual([...new Set(stub.requests.map((one) => one.method))], [method]);
    assert.equal(new Set(stub.requests.map((one) => one.body)).size, 1);
    return stub.requests.length;
}

for (const method of Object.keys(CALLS)) {
    for (const status of [429, 503]) {
        test(`${method} is repeated after ${status} with Retry-After`, async () => {
            assert.equal(await attempts(method, [{ status, headers: { "Retry-After": "0" } }, DONE]), 2);
        });
    }
    for (const failure of [
        { status: 502 },
        { status: 503 },
        { status: 504 },
        { closes: "at once" },
        { closes: "half way" },
    ] satisfies Reply[]) {
        test(`${method} after ${JSON.stringify(failure)}, when it may have had an effect`, async () => {
            assert.equal(await attempts(method, [failure, DONE]), method === "PATCH" ? 1 : 2);
        });
    }
}

for (const method of ["PUT", "DELETE"]) {
    test(`a conditional ${method} is not repeated`, async () => {
        assert.equal(await attempts(method, [{ status: 503 }, DONE], '"1"'), 1);
        assert.equal(stub.requests[0]?.headers["if-match"], '"1"');
    });
}

for (const status of [400, 403, 409, 422, 500, 501]) {
    test(`no request is repeated after ${status}`, async () => {
        assert.equal(await attempts("GET", [{ status }, DONE]), 1);
    });
}

test("the delay of Retry-After is waited for", async () => {
    const started = performance.now();

    await attempts("GET", [{ status: 429, headers: { "Retry-After": "1" } }, DONE]);

    assert(performance.now() - started >= 1000);
});

test("attempts are limited", async () => {
    stub.replies = [{ status: 503 }];

    await assert.rejects(client({ maxAttempts: 3 }).contacts.get(ID), ServerError);

    assert.equal(stub.requests.length, 3);
});

test("a delay that is too long is an error", async () => {
    stub.replies = [{ status: 429, headers: { "Retry-After": "3600" } }];

    await assert.rejects(client().contacts.get(ID), (error) => {
        assert(error instanceof TooManyRequestsError);
        assert.equal(error.headers.get("Retry-After"), "3600");
        return true;
    });

    assert.equal(stub.requests.length, 1);
});

test("a service that cannot be reached", async () => {
    let sent = 0;
    const refused = (): Promise<Response> => {
        sent++;
        return fetch("http://127.0.0.1:1/"); // the port of tcpmux, which is unused
    };
    const ctms = new Client("http://127.0.0.1:1", "id", "secret", {
        fetch: refused,
        retries: { backoffSeconds: 0.001, maxAttempts: 3 },
    });

    await assert.rejects(ctms.contacts.update(ID, {}), (error) => {
        assert(error instanceof TransportError);
        assert.match(error.message, /^POST failed: TypeError: fetch failed/);
        return true;
    });

    assert.equal(sent, 3);
});

test("a slow service", async () => {
    const ctms = client({ maxAttempts: 2 }, 2);
    await ctms.contacts.find({ sfdc_id: "1" });
    stub.replies = [{ waits: true }];

    await assert.rejects(ctms.contacts.get(ID), /GET failed: TimeoutError/);

    assert.equal(stub.requests.length, 3);
});

test("a caller can abort", async () => {
    stub.replies = [{ status: 503, headers: { "Retry-After": "60" } }];
    const controller = new AbortController();
    stub.barrier = async () => {
        setImmediate(() => controller.abort(new Error("enough")));
        return undefined;
    };

    await assert.rejects(client().api.GET("/waitlists", { signal: controller.signal }), /enough|abort/i);

    assert.equal(stub.requests.length, 1);
});

test("the delay doubles up to a limit", () => {
    const attempt = { request: new Request("http://localhost"), repeatable: true, timeoutSeconds: 1, fetch };
    const retries = { ...DEFAULT_RETRIES, maxAttempts: 6, maxBackoffSeconds: 3 };

    for (const [index, longest] of [0.5, 1, 2, 3, 3].entries()) {
        const delay = delayBeforeRetry(index + 1, attempt, new Response(null, { status: 503 }), retries);
        assert(delay !== undefined && delay >= longest / 2 && delay <= longest);
    }
    assert.equal(delayBeforeRetry(6, attempt, new Response(null, { status: 503 }), retries), undefined);
    const limited = new Response(null, { status: 429, headers: { "Retry-After": "7" } });
    const delay = delayBeforeRetry(1, { ...attempt, repeatable: false }, limited, retries);
    assert(delay !== undefined && delay >= 7 && delay <= 9);
});

for (const [value, date, seconds] of [
    ["0", undefined, 0],
    ["15", undefined, 15],
    ["Fri, 27 Nov 2026 12:00:30 GMT", "Fri, 27 Nov 2026 12:00:00 GMT", 30],
    ["Fri, 27 Nov 2026 11:59:00 GMT", "Fri, 27 Nov 2026 12:00:00 GMT", 0],
    ["Fri, 01 Jan 1999 00:00:00 GMT", undefined, 0],
    ["soon", undefined, undefined],
    ["", undefined, undefined],
] as const) {
    test(`Retry-After: ${value}`, () => {
        const headers = new Headers({ "Retry-After": value });
        if (date !== undefined) headers.set("Date", date);
        assert.equal(retryAfter(headers), seconds);
    });
}
