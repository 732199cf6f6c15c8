// Errors of the client. Their messages contain no e-mail addresses, so they can be logged.
import type { components } from "./schema.js";

/** A validation error: the path to the value, a message for people, a type for programs. */
export type Problem = components["schemas"]["Problem"];

/** The body of an error response. */
export interface ErrorBody {
    readonly detail?: string | Problem[];
    readonly [member: string]: unknown;
}

const ADDRESS = /[^\s"'<>(),;:[\]]+@[^\s"'<>(),;:[\]]+/g;

/** Return the text with `<address>` in place of each e-mail address. */
export function redact(text: string): string {
    return text.replace(ADDRESS, "<address>");
}

/** Base class of all errors of the client. */
export class CtmsError extends Error {
    override get name(): string {
        return this.constructor.name;
    }
}

/** A request without a response, after all retries. `cause` is the error of `fetch`. */
export class TransportError extends CtmsError {}

/** A response that is not one of CTMS, such as a page of a proxy. */
export class InvalidResponseError extends CtmsError {}

/** An error response. `body` is the error as the service sent it, and may contain personal data. */
export class ResponseError extends CtmsError {
    readonly status: number;
    readonly headers: Headers;
    readonly body: ErrorBody;

    constructor(response: Response, body: unknown) {
        const error = isBody(body) ? body : {};
        super(describe(response, error));
        this.status = response.status;
        this.headers = response.headers;
        this.body = error;
    }

    /** The message, or the list of validation errors. */
    get detail(): string | Problem[] | undefined {
        return this.body.detail;
    }

    /** The id under which the service has logged the request. */
    get requestId(): string | null {
        return this.headers.get("X-Request-Id");
    }
}

/** 400, 413 or 422: the request is invalid. */
export class InvalidRequestError extends ResponseError {}

/** 401, or an error of `/token`: the client's id or secret is wrong, or the client is disabled. */
export class AuthenticationError extends ResponseError {}

/** 403: the client lacks the permission that `detail` names, or the address is suppressed. */
export class ForbiddenError extends ResponseError {}

/** 404: there is no such contact. */
export class NotFoundError extends ResponseError {
    /** The id of the contact into which this one was merged, if it was. */
    get mergedInto(): string | undefined {
        return text(this.body["merged_into"]);
    }
}

/** 409: another contact has one of the identities. */
export class ConflictError extends ResponseError {
    /** The identity that is taken, if the service reports it. */
    get field(): string | undefined {
        return text(this.body["field"]);
    }
}

/** 410: the position is too old, or deletions were not yet recorded then. List all contacts anew. */
export class GoneError extends ResponseError {
    /** The earliest possible start. */
    get recordedSince(): string | undefined {
        return text(this.body["recorded_since"]);
    }
}

/** 412: the contact has changed since its `etag` was read. */
export class PreconditionFailedError extends ResponseError {}

/** 429, after all retries. */
export class TooManyRequestsError extends ResponseError {}

/** 5xx, after all retries. */
export class ServerError extends ResponseError {}

const BY_STATUS: Readonly<Record<number, typeof ResponseError>> = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    412: PreconditionFailedError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: TooManyRequestsError,
};

/** Return the error for an error response. */
export async function errorOf(response: Response, kind?: typeof ResponseError): Promise<ResponseError> {
    const sent = await response.text();
    let body: unknown;
    try {
        body = JSON.parse(sent);
    } catch {
        body = undefined; // not JSON, such as a page of a proxy
    }
    const fallback = response.status >= 500 ? ServerError : ResponseError;
    return new (kind ?? BY_STATUS[response.status] ?? fallback)(response, body);
}

function isBody(body: unknown): body is ErrorBody {
    return typeof body === "object" && body !== null && !Array.isArray(body);
}

function describe(response: Response, body: ErrorBody): string {
    const detail = Array.isArray(body.detail) ? body.detail.map(problem).join("; ") : body.detail;
    const message = `${response.status}: ${detail ? redact(detail) : "no details"}`;
    const id = response.headers.get("X-Request-Id");
    return id ? `${message} (request ${id})` : message;
}

function problem(one: Problem): string {
    return `${one.loc.join(".")}: ${one.msg} (${one.type})`;
}

function text(value: unknown): string | undefined {
    return typeof value === "string" ? value : undefined;
}
