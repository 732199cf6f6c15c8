import assert from "node:assert/strict";
import { test } from "node:test";

import { chunksOf } from "../src/batches.js";
import { type BatchItem, Client } from "../src/index.js";
import { useStub } from "./stub.js";

const stub = useStub();

function client(): Client {
    return new Client(stub.url, "id_test", "secret_test", { retries: { backoffSeconds: 0.001 } });
}

function items(number: number): BatchItem[] {
    return Array.from({ length: number }, (_, index) => ({
        match: { primary_email: `${index}@example.com` },
        contact: { email: { first_name: "Ada" } },
    }));
}

async function collect<T>(found: AsyncIterable<T>): Promise<T[]> {
    const all: T[] = [];
    for await (const one of found) all.push(one);
    return all;
}

test("a lost chunk is sent again with its key", async () => {
    const keys: (string | undefined)[] = [];
    const sizes: number[] = [];
    stub.barrier = async ({ headers, body }) => {
        keys.push(headers["idempotency-key"]?.toString());
        const sent = (JSON.parse(body) as { items: unknown[] }).items;
        sizes.push(sent.length);
        if (keys.length === 2) return { closes: "at once" };
        const result = { status: "invalid", errors: [{ loc: ["body", "items", 0], msg: "", type: "" }] };
        return { status: 207, body: { items: sent.map((_, index) => ({ index, ...result })) } };
    };

    const results = await collect(client().batch(items(5), { chunk: 2 }));

    assert.deepEqual(
        results.map((one) => one.index),
        [0, 1, 2, 3, 4],
    );
    assert.deepEqual(
        results.map((one) => one.errors[0]?.loc[2]),
        [0, 1, 2, 3, 4],
    );
    assert.deepEqual(sizes, [2, 2, 2, 1]);
    assert.equal(keys[1], keys[2]);
    assert.equal(new Set(keys).size, 3);
});

test("a request is not too large", async () => {
    const [item] = items(1);
    assert(item);
    const length = JSON.stringify(item).length;
    const large = { ...item, contact: { email: { first_name: "a".repeat(5 * length) } } };

    const chunks = await collect(chunksOf([...Array<BatchItem>(7).fill(item), large, item], 1000, 3 * length + 10));

    assert.deepEqual(
        chunks.map((one) => [one.offset, one.length]),
        [
            [0, 3],
            [3, 3],
            [6, 1],
            [7, 1],
            [8, 1],
        ],
    );
    for (const chunk of chunks) assert.equal((JSON.parse(chunk.body) as { items: [] }).items.length, chunk.length);
});

test("what is not sent", async () => {
    assert.deepEqual(await collect(client().batch([])), []);
    await assert.rejects(collect(client().batch(items(1), { chunk: 0 })), RangeError);
    await assert.rejects(collect(client().batch(items(1), { chunk: 1001 })), RangeError);
    await assert.rejects(collect(client().batch(items(2), { chunk: 1, atomic: true })), /too large for one request/);

    assert.equal(stub.requests.length, 0);
});
