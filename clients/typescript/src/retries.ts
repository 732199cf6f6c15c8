// Which requests are repeated, how often, and after which delay.
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Limits of the retries of one request.
 *
 * A request is repeated after 429, and after 503 with `Retry-After`: the service has then changed nothing. It is also
 * repeated after a connection that failed before it was sent. Only requests that have the same effect when they are
 * repeated are repeated after 502, 503, 504, a timeout or a lost connection.
 *
 * The delay is that of `Retry-After`, otherwise it doubles from `backoffSeconds` to `maxBackoffSeconds`, less a random
 * part of up to a half. With a longer `Retry-After` than `maxRetryAfterSeconds` the error is thrown at once.
 */
export interface Retries {
    readonly maxAttempts: number;
    readonly backoffSeconds: number;
    readonly maxBackoffSeconds: number;
    readonly maxRetryAfterSeconds: number;
}

/** The limits that apply unless others are given. */
export const DEFAULT_RETRIES: Retries = {
    maxAttempts: 5,
    backoffSeconds: 0.5,
    maxBackoffSeconds: 30,
    maxRetryAfterSeconds: 120,
};

/** What a request needs to be sent again. */
export interface Attempt {
    readonly request: Request;
    /** Whether the request has the same effect when it is repeated. */
    readonly repeatable: boolean;
    readonly timeoutSeconds: number;
    readonly fetch: typeof globalThis.fetch;
}

const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
const NOT_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);
const WITHOUT_BODY = new Set([101, 204, 205, 304]);

/** Return whether a request has the same effect when it is repeated; `known` overrides what its method says. */
export function isRepeatable(request: Request, known?: boolean): boolean {
    if (request.headers.has("If-Match")) return false; // after an attempt that took effect, the tag no longer matches
    return known ?? (IDEMPOTENT.has(request.method) || request.headers.has("Idempotency-Key"));
}

/** Send a request until it succeeds, fails for good, or has been sent often enough. */
export async function sendWithRetries(attempt: Attempt, retries: Retries): Promise<Response> {
    for (let number = 1; ; number++) {
        let outcome: Response | Error;
        try {
            outcome = await send(attempt);
        } catch (error) {
            if (attempt.request.signal.aborted || !(error instanceof Error)) throw error; // by the caller
            outcome = error;
        }
        const delay = delayBeforeRetry(number, attempt, outcome, retries);
        if (delay === undefined) {
            if (outcome instanceof Error) throw outcome;
            return outcome;
        }
        await sleep(delay * 1000, undefined, { signal: attempt.request.signal });
    }
}

/** Return the delay that a response asks for, in seconds; undefined if there is none, or it is invalid. */
export function retryAfter(headers: Headers): number | undefined {
    const value = headers.get("Retry-After")?.trim() ?? "";
    if (/^\d+$/.test(value)) return Number(value);
    const until = Date.parse(value);
    if (Number.isNaN(until)) return undefined;
    const now = Date.parse(headers.get("Date") ?? ""); // of the same clock, which may differ from ours
    return Math.max(0, (until - (Number.isNaN(now) ? Date.now() : now)) / 1000);
}

/** Send a request once, and read its response completely. */
async function send(attempt: Attempt): Promise<Response> {
    const timeout = AbortSignal.timeout(attempt.timeoutSeconds * 1000);
    const signal = AbortSignal.any([attempt.request.signal, timeout]);
    // A body can be read only once, hence the copy.
    const response = await attempt.fetch(new Request(attempt.request.clone(), { signal, redirect: "manual" }));
    const body = await response.arrayBuffer();
    const { status, statusText, headers } = response;
    return new Response(WITHOUT_BODY.has(status) ? null : body, { status, statusText, headers });
}

/** Return the seconds to wait before the next attempt; undefined if there is none. The first `number` is 1. */
export function delayBeforeRetry(
    number: number,
    attempt: Attempt,
    outcome: Response | Error,
    retries: Retries,
): number | undefined {
    if (number >= retries.maxAttempts || !mayRepeat(attempt, outcome)) return undefined;
    const longest = Math.min(retries.maxBackoffSeconds, retries.backoffSeconds * 2 ** (number - 1));
    const backoff = longest * (0.5 + Math.random() / 2);
    const wanted = outcome instanceof Response ? retryAfter(outcome.headers) : undefined;
    if (wanted === undefined) return backoff;
    // Clients that were refused together do not return together.
    return wanted > retries.maxRetryAfterSeconds ? undefined : wanted + Math.min(backoff, 1 + wanted / 10);
}

function mayRepeat(attempt: Attempt, outcome: Response | Error): boolean {
    if (outcome instanceof Error) return attempt.repeatable || NOT_SENT.has(codeOf(outcome));
    if (outcome.status === 429 || (outcome.status === 503 && outcome.headers.has("Retry-After"))) return true;
    return [502, 503, 504].includes(outcome.status) && attempt.repeatable;
}

function codeOf(error: Error): string {
    const cause: unknown = error.cause;
    return typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : "";
}
