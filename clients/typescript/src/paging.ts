// What the service returns page by page, as iterators that can be continued later.

/** A page. */
export interface Page<Item = unknown> {
    readonly items: readonly Item[];
}

/** A page of a feed. */
export interface FeedPage extends Page {
    readonly next: string | null;
    readonly end: string;
}

/** Where a feed starts: at a time, or at the position of an earlier feed, with its parameters. */
export type Start = { readonly since: Date | string } | { readonly position: string };

/** A place in a list, and the page there. */
export interface Cursor<P> {
    readonly position: string;
    get(): Promise<P>;
    /** Move behind the page; return whether there are more. */
    advance(page: P): boolean;
}

/**
 * Items that are read page by page while it is iterated.
 *
 * A feed yields what has changed since `position`, and ends at the newest change. Iterate again for later changes.
 */
export class Paged<P extends Page<Item>, Item = P["items"][number]> implements AsyncIterable<Item> {
    readonly #cursor: Cursor<P>;

    constructor(cursor: Cursor<P>) {
        this.#cursor = cursor;
    }

    /**
     * Where to continue, as a text to be stored.
     *
     * It moves when the iterator is asked for what follows a page. So store it after the items before it have been
     * processed: none is missed, and at most one page is repeated.
     */
    get position(): string {
        return this.#cursor.position;
    }

    /** Yield the pages, which have `items` and further members. */
    async *pages(): AsyncGenerator<P, void, undefined> {
        for (;;) {
            const page = await this.#cursor.get();
            yield page;
            if (!this.#cursor.advance(page)) return;
        }
    }

    async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
        for await (const page of this.pages()) yield* page.items;
    }
}

/** A place in `/updates` or `/events`: the query of the next request. */
export class FeedCursor<P extends FeedPage> implements Cursor<P> {
    position: string;
    readonly #path: string;
    readonly #get: (path: string) => Promise<P>;

    constructor(get: (path: string) => Promise<P>, path: string, position: string) {
        this.#get = get;
        this.#path = path;
        this.position = position;
    }

    get(): Promise<P> {
        return this.#get(`${this.#path}?${this.position}`);
    }

    advance(page: P): boolean {
        if (page.next !== null) {
            this.position = new URL(page.next).search.slice(1);
            return true;
        }
        const query = new URLSearchParams(this.position);
        query.delete("end");
        query.delete("after");
        query.set("start", page.end); // after the last page, the end of the period
        this.position = query.toString();
        return false;
    }
}

/** A page of a search. */
export interface SearchPage extends Page {
    readonly after: string | null;
}

/** A place in the contacts that match a condition: the `after` of the next request, at first an empty text. */
export class SearchCursor<P extends SearchPage> implements Cursor<P> {
    position: string;
    readonly #get: (after: { after?: string }) => Promise<P>;

    constructor(get: (after: { after?: string }) => Promise<P>, position: string) {
        this.#get = get;
        this.position = position;
    }

    get(): Promise<P> {
        return this.#get(this.position ? { after: this.position } : {});
    }

    advance(page: P): boolean {
        this.position = page.after ?? ""; // after the last page, back to the beginning
        return page.after !== null;
    }
}

/** Return the first position of a feed. */
export function feedStart(start: Start, options: Readonly<Record<string, unknown>>): string {
    if ("position" in start) return start.position;
    const { since } = start;
    const query = new URLSearchParams({ start: since instanceof Date ? since.toISOString() : since });
    for (const [name, value] of Object.entries(options)) {
        if (value !== undefined) query.set(name, String(value));
    }
    return query.toString();
}
