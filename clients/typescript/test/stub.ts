// A service that issues the tokens `t1`, `t2`, … and gives the replies in turn, the last one again and again.
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach } from "node:test";

export interface Received {
    readonly method: string;
    readonly path: string;
    readonly headers: IncomingMessage["headers"];
    readonly body: string;
}

export interface Reply {
    readonly status?: number;
    readonly headers?: Record<string, string>;
    readonly body?: unknown;
    /** Close the connection: before the response, or in the middle of its body. */
    readonly closes?: "at once" | "half way";
    readonly waits?: boolean;
}

export class Stub {
    url = "";
    received: Received[] = [];
    replies: Reply[] = [{ body: [] }];
    tokenReplies: Reply[] = [];
    expiresIn = 3600;
    issued = 0;
    /** Called before each response other than those of `/token`. */
    barrier: ((request: Received) => Promise<Reply | undefined>) | undefined;
    readonly #server: Server = createServer((request, response) => void this.#respond(request, response));

    get requests(): Received[] {
        return this.received.filter((one) => one.path !== "/token");
    }

    get tokenRequests(): Received[] {
        return this.received.filter((one) => one.path === "/token");
    }

    get sentTokens(): (string | undefined)[] {
        return this.requests.map((one) => one.headers.authorization?.replace("Bearer ", ""));
    }

    reset(): void {
        Object.assign(this, { received: [], replies: [{ body: [] }], tokenReplies: [], expiresIn: 3600, issued: 0 });
        this.barrier = undefined;
    }

    async start(): Promise<void> {
        await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
        this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    }

    stop(): void {
        this.#server.closeAllConnections();
        this.#server.close();
    }

    async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
        const parts: Buffer[] = [];
        for await (const part of request) parts.push(part as Buffer);
        const { method = "", url = "", headers } = request;
        const received = { method, path: url, headers, body: Buffer.concat(parts).toString() };
        this.received.push(received);
        const reply = url === "/token" ? this.#tokenReply() : ((await this.barrier?.(received)) ?? this.#reply());
        if (reply.waits) return;
        if (reply.closes === "at once") {
            request.socket.destroy();
            return;
        }
        const body = typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body ?? {});
        const length = Buffer.byteLength(body) + (reply.closes ? 100 : 0);
        response.writeHead(reply.status ?? 200, { "Content-Length": length, ...reply.headers });
        response.write(body, () => {
            if (reply.closes) request.socket.destroy();
        });
        if (!reply.closes) response.end();
    }

    #reply(): Reply {
        const reply = this.replies.length > 1 ? this.replies.shift() : this.replies[0];
        assert(reply);
        return reply;
    }

    #tokenReply(): Reply {
        const body = { access_token: `t${this.issued + 1}`, token_type: "bearer", expires_in: this.expiresIn };
        const reply = this.tokenReplies.shift();
        if (reply === undefined) this.issued++;
        return reply ?? { body };
    }
}

/** Run a stub for the tests of a file. */
export function useStub(): Stub {
    const stub = new Stub();
    before(() => stub.start());
    beforeEach(() => stub.reset());
    after(() => stub.stop());
    return stub;
}
