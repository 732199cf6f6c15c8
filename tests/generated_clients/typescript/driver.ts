// Drives openapi-fetch with the types that openapi-typescript makes: a line of JSON in is a step, a line out is what came.
// `ctms.d.ts`, the generated types, lies beside this file where it is compiled.

import { createInterface } from "node:readline";
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./ctms.js";

type Contact = components["schemas"]["Contact"];
type ContactPut = components["schemas"]["ContactPut"];
type Arguments = { [name: string]: string };

const url = process.argv[2]!;
let ctms: Client<paths> = createClient<paths>({ baseUrl: url });

async function read(email_id: string): Promise<Contact> {
    const { data } = await ctms.GET("/ctms/{email_id}", { params: { path: { email_id } } });
    return data!;
}

async function put(email_id: string, body: ContactPut): Promise<Contact> {
    const { data, error } = await ctms.PUT("/ctms/{email_id}", { params: { path: { email_id } }, body });
    if (!data) throw new Error(JSON.stringify(error));
    return data;
}

async function patch(email_id: string, body: components["schemas"]["ContactPatch"]): Promise<Contact> {
    const { data, error } = await ctms.PATCH("/ctms/{email_id}", { params: { path: { email_id } }, body });
    if (!data) throw new Error(JSON.stringify(error));
    return data;
}

async function create(body: components["schemas"]["ContactInput"]): Promise<string> {
    const { data } = await ctms.POST("/ctms", { body });
    return data!.email.email_id;
}

const steps: { [step: string]: (given: Arguments) => Promise<unknown> } = {
    async log_in({ client_id, client_secret }) {
        const { data } = await ctms.POST("/token", {
            body: { client_id, client_secret },
            headers: { "Content-Type": "application/x-www-form-urlencoded" },
        });
        ctms = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${data!.access_token}` } });
        return data!.token_type;
    },

    async create({ address }) {
        return await create({
            email: { primary_email: address!, first_name: "Ada", email_format: "T" },
            fxa: { fxa_id: `fxa:${address}` },
            newsletters: [{ name: "weekly", lang: null, source: "https://example.com/" }],
            waitlists: [
                { name: "vpn", fields: { geo: "ca", platform: "linux" } },
                { name: "hub", fields: { seats: { rows: [1, 2] } }, subscribed: true },
            ],
        });
    },

    async create_minimal({ address }) {
        return await create({ email: { primary_email: address! } });
    },

    async read({ email_id }) {
        const contact = await read(email_id!);
        return {
            primary_email: contact.email.primary_email,
            email_format: contact.email.email_format,
            year: new Date(contact.email.create_timestamp).getUTCFullYear(),
            fields: Object.fromEntries(contact.waitlists.map(({ name, fields }) => [name, fields])),
            vpn: contact.vpn_waitlist.geo,
        };
    },

    async list({ start, fxa_id }) {
        const page = await ctms.GET("/updates", { params: { query: { start: start! } } });
        const found = await ctms.GET("/ctms", { params: { query: { fxa_id } } });
        const identities = await ctms.GET("/identities", { params: { query: { fxa_id } } });
        const rules = await ctms.GET("/waitlists");
        return {
            updates: page.data!.items.map(({ email }) => email.email_id),
            found: found.data!.map(({ email }) => email.email_id),
            identities: identities.data!.map(({ email_id }) => email_id),
            waitlists: rules.data!.map(({ name }) => name),
        };
    },

    async put_what_was_read({ email_id }) {
        const contact = await read(email_id!);
        return (await put(email_id!, contact)).status;
    },

    async put_changed({ email_id, first_name }) {
        const contact = await read(email_id!);
        contact.email.first_name = first_name!;
        contact.newsletters[0]!.lang = "fr";
        return (await put(email_id!, contact)).email.first_name;
    },

    async patch({ email_id, first_name }) {
        return (await patch(email_id!, { email: { first_name } })).email.first_name;
    },

    async unsubscribe({ email_id, waitlist }) {
        const changed = await patch(email_id!, { waitlists: [{ name: waitlist!, subscribed: false }] });
        return changed.waitlists.map(({ subscribed }) => subscribed);
    },

    async unsubscribe_all({ email_id }) {
        return (await patch(email_id!, { newsletters: "UNSUBSCRIBE", waitlists: "UNSUBSCRIBE" })).status;
    },

    async reset_account({ email_id }) {
        return (await patch(email_id!, { fxa: "DELETE" })).fxa.fxa_id;
    },

    async delete({ address }) {
        const { data } = await ctms.DELETE("/ctms/{email_id}", { params: { path: { email_id: address! } } });
        return data!.map(({ primary_email }) => primary_email);
    },

    async fail_to_read({ email_id }) {
        const { error, response } = await ctms.GET("/ctms/{email_id}", { params: { path: { email_id: email_id! } } });
        return [response.status, error!.detail];
    },

    async fail_to_create_twice({ address }) {
        const body = { email: { primary_email: address!, first_name: "Another" } };
        const { error, response } = await ctms.POST("/ctms", { body });
        if (!error || !("field" in error)) throw new Error("no conflict");
        return [response.status, error.detail, error.field];
    },

    async fail_to_validate({ address }) {
        const body = { email: { primary_email: address! }, waitlists: [{ name: "vpn", fields: { more: 1 } }] };
        const { error, response } = await ctms.POST("/ctms", { body });
        const problems = error!.detail;
        if (typeof problems === "string") throw new Error(problems);
        return [response.status, problems.map(({ loc }) => loc)];
    },
};

// What must not compile: mistakes that the types are there to find.
// @ts-expect-error no such word stands for the waitlists
export const word: components["schemas"]["ContactPatch"] = { waitlists: "DELETE" };
// @ts-expect-error a misspelt member
export const misspelt: components["schemas"]["WaitlistPatch"] = { name: "vpn", subscibed: false };
// @ts-expect-error the address is required
export const nobody: components["schemas"]["ContactInput"] = { email: {} };

for await (const line of createInterface({ input: process.stdin })) {
    const [step, given] = JSON.parse(line) as [string, Arguments];
    try {
        console.log(JSON.stringify({ came: (await steps[step]!(given)) ?? null }));
    } catch (error) {
        console.log(JSON.stringify({ failed: error instanceof Error ? error.stack : String(error) }));
    }
}
