import { randomUUID } from "node:crypto";

import createClient, { type Client as ApiClient } from "openapi-fetch";

import { type BatchItem, type BatchItemResult, type BatchOptions, type Chunk, chunksOf, shiftIndexes } from "./batches.js";
import { CtmsError, errorOf, InvalidResponseError, redact, TransportError } from "./errors.js";
import { FeedCursor, feedStart, Paged, SearchCursor, type Start } from "./paging.js";
import { DEFAULT_RETRIES, isRepeatable, type Retries, sendWithRetries } from "./retries.js";
import type { components, operations, paths } from "./schema.js";
import { type Token, Tokens } from "./tokens.js";

export type Schemas = components["schemas"];

/** A contact. `etag`, which is not part of the JSON, identifies its state: see `ifMatch`. */
export type Contact = Schemas["Contact"] & { readonly etag: string | null };

/** The identities by which contacts are found. */
export type Identities = NonNullable<operations["find_contacts"]["parameters"]["query"]>;

const MAX_LIMIT = 1000;

/** Options of a client. */
export interface ClientOptions {
    /** Timeout of each attempt, response included. */
    readonly timeoutSeconds?: number;
    readonly retries?: Partial<Retries>;
    /** Replaces the global `fetch`, for example to use a proxy. */
    readonly fetch?: typeof globalThis.fetch;
}

/** Options of a write. With `ifMatch`, the `etag` of a contact, it fails if the contact has changed. */
export interface WriteOptions {
    readonly ifMatch?: string;
}

/** Options of `updates`. */
export interface UpdatesOptions {
    readonly mofoRelevant?: boolean;
    /** List contacts that were deleted, or that are no longer `mofo_relevant`, in the pages. */
    readonly deleted?: boolean;
    /** Let the service read from a replica of its database; nothing is missed. */
    readonly staleOk?: boolean;
    readonly limit?: number;
}

/** A condition on contacts. */
export type Condition = Schemas["Condition"];

/** Options of a search. */
export interface SearchOptions {
    /** Parts of the contacts, such as `email.primary_email`, that the results have; all by default. */
    readonly fields?: NonNullable<Schemas["SearchRequest"]["fields"]>;
    readonly limit?: number;
    /** Where an earlier search with the same condition was: empty before the first page and after the last one. */
    readonly position?: string;
}

interface Call {
    readonly method: string;
    readonly path: string;
    readonly body?: unknown;
    /** The body as JSON, instead of `body`. */
    readonly content?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly repeatable?: boolean;
}

/**
 * A client of one service, for Node.js: it needs the secret of an API client, which must not reach a browser.
 *
 * `contacts` has the operations on single contacts; `api` calls all others, typed by the OpenAPI document. Both get and
 * renew tokens, and repeat requests that failed for a moment.
 */
export class Client {
    readonly contacts: Contacts;
    readonly api: ApiClient<paths>;
    readonly #url: string;
    readonly #tokens: Tokens;
    readonly #fetch: typeof globalThis.fetch;
    readonly #retries: Retries;
    readonly #timeoutSeconds: number;

    constructor(url: string, clientId: string, clientSecret: string, options: ClientOptions = {}) {
        this.#url = url.replace(/\/+$/, "");
        this.#fetch = options.fetch ?? globalThis.fetch;
        this.#retries = { ...DEFAULT_RETRIES, ...options.retries };
        this.#timeoutSeconds = options.timeoutSeconds ?? 30;
        this.#tokens = new Tokens(`${this.#url}/token`, clientId, clientSecret, (request) =>
            this.#attempts(request, true),
        );
        this.contacts = new Contacts((call, parse) => this.#call(call, parse));
        this.api = createClient<paths>({ baseUrl: this.#url, fetch: (request) => this.#authorized(request) });
    }

    /** Return the contacts that have changed, oldest first. */
    updates(start: Start, options: UpdatesOptions = {}): Paged<Schemas["Updates"]> {
        const { mofoRelevant: mofo_relevant, deleted, staleOk: stale_ok, limit = MAX_LIMIT } = options;
        return this.#feed("/updates", feedStart(start, { limit, mofo_relevant, deleted, stale_ok }));
    }

    /** Return the events of subscriptions, oldest first. */
    events(start: Start, options: { readonly limit?: number } = {}): Paged<Schemas["Events"]> {
        return this.#feed("/events", feedStart(start, { limit: options.limit ?? MAX_LIMIT }));
    }

    /** Return the contacts that match a condition, by id. */
    search(condition: Condition, options: SearchOptions = {}): Paged<Schemas["SearchPage"]> {
        const { fields, limit = MAX_LIMIT, position = "" } = options;
        const get = (after: { after?: string }): Promise<Schemas["SearchPage"]> =>
            this.#search({ filter: condition, limit, ...(fields && { fields }), ...after });
        return new Paged(new SearchCursor(get, position));
    }

    /** Return the number of contacts that match a condition, an estimate unless it is `exact`. */
    async count(condition: Condition): Promise<Schemas["SearchCount"]> {
        const page = await this.#search({ filter: condition, limit: 1, count: true, fields: ["email.email_id"] });
        if (page.count === undefined) throw new InvalidResponseError("the response has no count");
        return page.count;
    }

    #search(body: Partial<Schemas["SearchRequest"]>): Promise<Schemas["SearchPage"]> {
        const call = { method: "POST", path: "/ctms/search", body, repeatable: true };
        return this.#call(call, json<Schemas["SearchPage"]>);
    }

    /**
     * Create and update any number of contacts; yield the result of each item, by its `index` in `items`.
     *
     * Requests are sent while the results are read, so read all of them. Each has an `Idempotency-Key`, so it is repeated
     * safely. To continue after a crash, call this with the same items, `chunk` and `key` within 24 hours: what is stored
     * already is not written again.
     */
    async *batch(
        items: Iterable<BatchItem> | AsyncIterable<BatchItem>,
        options: BatchOptions = {},
    ): AsyncGenerator<BatchItemResult, void, undefined> {
        const { chunk, atomic = false, key = randomUUID() } = options;
        const source = atomic ? await inOneRequest(chunksOf(items, chunk)) : chunksOf(items, chunk);
        let number = 0;
        for await (const { offset, body: content } of source) {
            const path = `/ctms/batch${atomic ? "?atomic=true" : ""}`;
            const headers = { "Idempotency-Key": `${key}-${number++}` };
            const call = { method: "POST", path, content, headers };
            const { items: results } = await this.#call(call, json<Schemas["BatchResults"]>);
            yield* shiftIndexes(results, offset);
        }
    }

    #feed<P extends Schemas["Updates"] | Schemas["Events"]>(path: string, position: string): Paged<P> {
        const get = (target: string): Promise<P> => this.#call({ method: "GET", path: target }, json<P>);
        return new Paged<P>(new FeedCursor(get, path, position));
    }

    /** Make a call; return what `parse` reads from its response. */
    async #call<T>(call: Call, parse: Parse<T>): Promise<T> {
        const headers: Record<string, string> = { Accept: "application/json", ...call.headers };
        const init: RequestInit = { method: call.method, headers };
        const content = call.content ?? JSON.stringify(call.body); // undefined without a body
        if (content !== undefined) {
            headers["Content-Type"] = "application/json";
            init.body = content;
        }
        const response = await this.#authorized(new Request(this.#url + call.path, init), call.repeatable);
        if (!response.ok) throw await errorOf(response);
        try {
            return await parse(response);
        } catch (cause) {
            throw new InvalidResponseError(`unexpected response with status ${response.status}`, { cause });
        }
    }

    /** Send a request with a token; once more with another one if the service refuses it. */
    async #authorized(request: Request, repeatable?: boolean): Promise<Response> {
        let refused: Token | undefined;
        for (;;) {
            const token = await this.#tokens.current(refused);
            const authorized = new Request(request.clone());
            authorized.headers.set("Authorization", `Bearer ${token.value}`);
            const response = await this.#attempts(authorized, isRepeatable(request, repeatable));
            if (response.status !== 401 || refused !== undefined) return response;
            refused = token;
        }
    }

    async #attempts(request: Request, repeatable: boolean): Promise<Response> {
        const attempt = { request, repeatable, timeoutSeconds: this.#timeoutSeconds, fetch: this.#fetch };
        try {
            return await sendWithRetries(attempt, this.#retries);
        } catch (cause) {
            if (cause instanceof CtmsError || request.signal.aborted) throw cause;
            const reason = cause instanceof Error ? `${cause.name}: ${redact(cause.message)}` : "unknown cause";
            throw new TransportError(`${request.method} failed: ${reason}`, { cause });
        }
    }
}

type Parse<T> = (response: Response) => Promise<T>;
type CallContact = <T>(call: Call, parse: Parse<T>) => Promise<T>;

/** The operations on single contacts. */
export class Contacts {
    readonly #call: CallContact;

    constructor(call: CallContact) {
        this.#call = call;
    }

    /** Return a contact. Throws `NotFoundError` if there is none with this id. */
    get(emailId: string): Promise<Contact> {
        return this.#call({ method: "GET", path: pathOf(emailId) }, contact);
    }

    /** Return the contacts that match all identities. */
    find(identities: Identities): Promise<Schemas["ListedContact"][]> {
        const query = new URLSearchParams(Object.entries(identities).filter(([, value]) => value !== undefined));
        return this.#call({ method: "GET", path: `/ctms?${query}` }, json<Schemas["ListedContact"][]>);
    }

    /**
     * Create a contact. Throws `ConflictError` if another one has one of its identities.
     *
     * The contact gets its id here unless it has one: the request then has the same effect when it is repeated.
     */
    create(contact_: Schemas["ContactInput"]): Promise<Contact> {
        const { email } = contact_ as Partial<typeof contact_>; // a caller without types may leave it out
        const body = email && { ...contact_, email: { ...email, email_id: email.email_id ?? randomUUID() } };
        return this.#call({ method: "POST", path: "/ctms", body: body ?? contact_, repeatable: true }, contact);
    }

    /** Create a contact, or replace all data of the contact with this id. */
    replace(emailId: string, body: Schemas["ContactPut"], options: WriteOptions = {}): Promise<Contact> {
        return this.#call({ method: "PUT", path: pathOf(emailId), body, headers: conditions(options) }, contact);
    }

    /**
     * Create a contact, or replace all data of the contact with this address.
     *
     * To change only what is given, use `Client.batch`.
     */
    upsert(primaryEmail: string, body: Schemas["ContactInput"], options: WriteOptions = {}): Promise<Contact> {
        const path = `/ctms?${new URLSearchParams({ primary_email: primaryEmail })}`;
        return this.#call({ method: "PUT", path, body, headers: conditions(options) }, contact);
    }

    /** Change what the patch contains. */
    update(emailId: string, body: Schemas["ContactPatch"], options: WriteOptions = {}): Promise<Contact> {
        return this.#call({ method: "PATCH", path: pathOf(emailId), body, headers: conditions(options) }, contact);
    }

    /**
     * Delete all data about an address; return the identities of the deleted contacts.
     *
     * Throws `NotFoundError` if there is no such contact, also if an attempt whose response was lost has deleted it.
     */
    delete(primaryEmail: string, options: WriteOptions = {}): Promise<Schemas["Identity"][]> {
        const call = { method: "DELETE", path: pathOf(primaryEmail), headers: conditions(options) };
        return this.#call(call, json<Schemas["Identity"][]>);
    }
}

/** Return all chunks if there is at most one. */
async function inOneRequest(chunks: AsyncIterable<Chunk>): Promise<Chunk[]> {
    const found: Chunk[] = [];
    for await (const chunk of chunks) {
        if (found.push(chunk) > 1) throw new RangeError("an atomic batch is too large for one request");
    }
    return found;
}

function pathOf(last: string): string {
    return `/ctms/${encodeURIComponent(last)}`;
}

function conditions(options: WriteOptions): Record<string, string> {
    return options.ifMatch === undefined ? {} : { "If-Match": options.ifMatch };
}

async function json<T>(response: Response): Promise<T> {
    return (await response.json()) as T;
}

async function contact(response: Response): Promise<Contact> {
    const document = await json<Schemas["Contact"]>(response);
    // Not enumerable, so that a contact can be sent back.
    return Object.defineProperty(document, "etag", { value: response.headers.get("ETag") }) as Contact;
}
