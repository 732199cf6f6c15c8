// Batches: the bodies for any number of items.
import type { components } from "./schema.js";

/** An item of a batch. */
export type BatchItem = components["schemas"]["BatchItem"];

/** The result of an item, by its `index` in the items. */
export type BatchItemResult = components["schemas"]["BatchItemResult"];

/** Options of a batch. */
export interface BatchOptions {
    /** Number of items in a request, at most 1,000. */
    readonly chunk?: number;
    /** Store all in one request, or throw `ConflictError`, whose `body` has the `items` that cannot be stored. */
    readonly atomic?: boolean;
    /** What the keys of the requests begin with. Use one that is hard to guess. */
    readonly key?: string;
}

/** A part of the items: the index of its first one, and its body. */
export interface Chunk {
    readonly offset: number;
    readonly length: number;
    readonly body: string;
}

export const MAX_ITEMS = 1000;

/** Size of the items in a request, below the limit of the service. */
const MAX_BYTES = 8 * 1024 * 1024;

/** Yield the items in parts that fit into a request. */
export async function* chunksOf(
    items: Iterable<BatchItem> | AsyncIterable<BatchItem>,
    length = MAX_ITEMS,
    maxBytes = MAX_BYTES,
): AsyncGenerator<Chunk, void, undefined> {
    if (!(length >= 1 && length <= MAX_ITEMS)) throw new RangeError(`chunk must be from 1 to ${MAX_ITEMS}`);
    let [offset, size] = [0, 0];
    let chunk: string[] = [];
    const close = (): Chunk => ({ offset, length: chunk.length, body: `{"items":[${chunk.join(",")}]}` });
    for await (const item of items) {
        const text = JSON.stringify(item);
        const bytes = Buffer.byteLength(text);
        if (chunk.length > 0 && (chunk.length === length || size + bytes > maxBytes)) {
            yield close();
            [offset, size, chunk] = [offset + chunk.length, 0, []];
        }
        chunk.push(text);
        size += bytes + 1;
    }
    if (chunk.length > 0) yield close();
}

/** Count the indexes of results from the first item of the batch. */
export function shiftIndexes(results: readonly BatchItemResult[], offset: number): BatchItemResult[] {
    return results.map((result) => {
        const index = result.index + offset;
        const errors = result.errors.map((error) => ({ ...error, loc: error.loc.with(2, index) })); // body, items, index
        return { ...result, index, errors };
    });
}
