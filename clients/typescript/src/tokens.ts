// Access tokens by OAuth 2 client credentials (RFC 6749, 4.4).
import { AuthenticationError, errorOf, InvalidResponseError } from "./errors.js";

/** A token is renewed this long before it expires, or after three quarters of a shorter life. */
const MAX_MARGIN_SECONDS = 30;

/** A token and when to renew it, on the clock of `performance.now`. */
export interface Token {
    readonly value: string;
    readonly renewAt: number;
}

/** Gets a token and renews it. All requests share it, and wait for the same renewal. */
export class Tokens {
    readonly #url: string;
    readonly #basic: string;
    readonly #send: (request: Request) => Promise<Response>;
    #token: Token | undefined;
    #pending: Promise<Token> | undefined;

    constructor(url: string, clientId: string, clientSecret: string, send: (request: Request) => Promise<Response>) {
        this.#url = url;
        this.#basic = Buffer.from(`${clientId}:${clientSecret}`).toString("base64");
        this.#send = send;
    }

    /** Return a token that is valid for a while and is not the one that was `refused`. */
    async current(refused?: Token): Promise<Token> {
        const token = this.#token;
        if (token !== undefined && token !== refused && performance.now() < token.renewAt) return token;
        this.#pending ??= this.#renew().finally(() => {
            this.#pending = undefined;
        });
        return this.#pending;
    }

    async #renew(): Promise<Token> {
        const sentAt = performance.now();
        const response = await this.#send(
            new Request(this.#url, {
                method: "POST",
                headers: { Authorization: `Basic ${this.#basic}`, Accept: "application/json" },
                body: new URLSearchParams({ grant_type: "client_credentials" }),
            }),
        );
        if (response.status !== 200) {
            const isRefusal = response.status === 400 || response.status === 401;
            throw await errorOf(response, isRefusal ? AuthenticationError : undefined);
        }
        const body: unknown = await response.json().catch(() => undefined);
        const { access_token: value, expires_in: lifetime } = (body ?? {}) as Record<string, unknown>;
        if (typeof value !== "string" || typeof lifetime !== "number") {
            throw new InvalidResponseError("the response of /token has no access_token and expires_in");
        }
        const life = lifetime - Math.min(MAX_MARGIN_SECONDS, lifetime / 4);
        this.#token = { value, renewAt: sentAt + life * 1000 };
        return this.#token;
    }
}
