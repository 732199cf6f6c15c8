import assert from "node:assert/strict";
import { test } from "node:test";

import * as ctmsClient from "../src/index.js";
import { useStub } from "./stub.js";

const { Client, ResponseError, InvalidResponseError } = ctmsClient;
const ID = "9e3ce3a8-9b7c-4c35-9a3f-6e0a4b0a7a51";
const stub = useStub();

function client(): ctmsClient.Client {
    return new Client(stub.url, "id_test", "secret_test", { retries: { maxAttempts: 1 } });
}

async function failure(call: Promise<unknown>): Promise<ctmsClient.ResponseError> {
    const error: unknown = await call.then(
        () => assert.fail("it succeeded"),
        (one: unknown) => one,
    );
    assert(error instanceof ResponseError, String(error));
    return error;
}

for (const [status, kind] of [
    [302, ResponseError],
    [400, ctmsClient.InvalidRequestError],
    [403, ctmsClient.ForbiddenError],
    [404, ctmsClient.NotFoundError],
    [405, ResponseError],
    [409, ctmsClient.ConflictError],
    [410, ctmsClient.GoneError],
    [412, ctmsClient.PreconditionFailedError],
    [413, ctmsClient.InvalidRequestError],
    [422, ctmsClient.InvalidRequestError],
    [500, ctmsClient.ServerError],
] as const) {
    test(`${status} is a ${kind.name}`, async () => {
        const headers = { "X-Request-Id": "abc", Location: "/elsewhere" };
        stub.replies = [{ status, headers, body: { detail: "The cause", more: 1 } }];

        const error = await failure(client().contacts.get(ID));

        assert.equal(error.constructor, kind);
        assert.equal(String(error), `${kind.name}: ${status}: The cause (request abc)`);
        assert.deepEqual([error.status, error.requestId], [status, "abc"]);
        assert.deepEqual(error.body, { detail: "The cause", more: 1 });
        assert.equal(stub.requests.length, 1);
    });
}

for (const body of ["", "<h1>Bad Gateway</h1>", "[1]"]) {
    test(`an error that is no JSON object: ${body}`, async () => {
        stub.replies = [{ status: 500, body }];

        const error = await failure(client().contacts.get(ID));

        assert.equal(error.message, "500: no details");
        assert.deepEqual(error.body, {});
    });
}

test("validation errors", async () => {
    const detail = [{ loc: ["body", "email", 1], msg: "Not a valid text", type: "string" }];
    stub.replies = [{ status: 422, body: { detail } }];

    const error = await failure(client().contacts.get(ID));

    assert.equal(error.message, "422: body.email.1: Not a valid text (string)");
    assert.deepEqual(error.detail, detail);
});

test("a response that is not one of CTMS", async () => {
    stub.replies = [{ body: "<html>Log in</html>" }];

    await assert.rejects(client().contacts.get(ID), InvalidResponseError);
});

for (const address of ["ada@example.com", "ada+x@example.com", "åda@bücher.example"]) {
    test(`no address is in the message of an error: ${address}`, async () => {
        stub.replies = [{ status: 404, body: { detail: `email ${address} not found!` } }];

        const error = await failure(client().contacts.delete(address));

        assert.equal(error.message, "404: email <address> not found!");
        assert(!String(error.stack).includes("@bücher") && !String(error.stack).includes("@example.com"));
        assert.equal(error.detail, `email ${address} not found!`);
    });
}
