// Against a running service, which `tests/generated_clients/installable` starts.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { before, test } from "node:test";

import {
    type BatchItem,
    Client,
    ConflictError,
    GoneError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    type Schemas,
} from "../src/index.js";

const { CTMS_TEST_URL = "", CTMS_TEST_CLIENT_ID = "", CTMS_TEST_CLIENT_SECRET = "" } = process.env;
const ctms = new Client(`${CTMS_TEST_URL}/`, CTMS_TEST_CLIENT_ID, CTMS_TEST_CLIENT_SECRET);

function address(): string {
    return `${randomUUID()}@example.com`;
}

async function create(number: number, rest: Omit<Schemas["ContactInput"], "email"> = {}): Promise<string[]> {
    const ids = [];
    for (let index = 0; index < number; index++) {
        const contact = await ctms.contacts.create({ email: { primary_email: address() }, ...rest });
        ids.push(contact.email.email_id);
    }
    return ids;
}

async function collect<T>(items: AsyncIterable<T>, limit = Infinity): Promise<T[]> {
    const found: T[] = [];
    for await (const item of items) {
        found.push(item);
        if (found.length === limit) break;
    }
    return found;
}

function ids(contacts: readonly Schemas["ListedContact"][]): string[] {
    return contacts.map((one) => one.email.email_id);
}

/** A position after all that other tests did. */
async function newest(): Promise<string> {
    const contact = await ctms.contacts.create({ email: { primary_email: address() } });
    const feed = ctms.updates({ since: contact.email.update_timestamp });
    await collect(feed);
    return feed.position;
}

async function start(): Promise<string> {
    const value = new URLSearchParams(await newest()).get("start");
    assert(value);
    return value;
}

before(() => assert(CTMS_TEST_URL, "CTMS_TEST_URL is not set"));

test("the life of a contact", async () => {
    const primary_email = address();
    const created = await ctms.contacts.create({ email: { primary_email }, newsletters: [{ name: "weekly" }] });
    const id = created.email.email_id;
    assert.deepEqual(await ctms.contacts.get(id), created);
    assert(created.etag);
    assert(!("etag" in (JSON.parse(JSON.stringify(created)) as object)));

    const updated = await ctms.contacts.update(
        id,
        { newsletters: [{ name: "weekly", subscribed: false }] },
        { ifMatch: created.etag },
    );
    assert.equal(updated.newsletters[0]?.subscribed, false);

    const replaced = await ctms.contacts.replace(id, { ...updated, newsletters: [] });
    assert.deepEqual(replaced.newsletters, []);
    const found = await ctms.contacts.find({ primary_email: primary_email.toUpperCase() });
    assert.deepEqual(ids(found), [id]);

    const deleted = await ctms.contacts.delete(primary_email);
    assert.deepEqual(
        deleted.map((one) => one.email_id),
        [id],
    );
    await assert.rejects(ctms.contacts.get(id), NotFoundError);
});

test("an id of the caller is kept", async () => {
    const contact = { email: { primary_email: address(), email_id: randomUUID() } };

    assert.equal((await ctms.contacts.create(contact)).email.email_id, contact.email.email_id);
    assert.equal((await ctms.contacts.create(contact)).email.email_id, contact.email.email_id);
});

test("a conflict", async () => {
    const contact = { email: { primary_email: address() } };
    await ctms.contacts.create(contact);

    await assert.rejects(ctms.contacts.create(contact), (error) => {
        assert(error instanceof ConflictError);
        assert.equal(error.field, "primary_email");
        return true;
    });
});

test("a contact that has changed", async () => {
    const primary_email = address();
    const contact = await ctms.contacts.create({ email: { primary_email } });
    const id = contact.email.email_id;
    const ifMatch = contact.etag!;
    await ctms.contacts.update(id, { email: { first_name: "Ada" } });

    await assert.rejects(
        ctms.contacts.update(id, { email: { first_name: "Grace" } }, { ifMatch }),
        PreconditionFailedError,
    );
    await assert.rejects(ctms.contacts.replace(id, contact, { ifMatch }), PreconditionFailedError);
    await assert.rejects(ctms.contacts.delete(primary_email, { ifMatch }), PreconditionFailedError);
});

for (const local of ["a+b", "a/b", "a%2Fb", "a?b#c", "á", "a&b=c"]) {
    test(`an address that needs quoting: ${local}`, async () => {
        const primary_email = `${local}${randomUUID().slice(0, 12)}@bücher.example`;
        const { email } = await ctms.contacts.create({ email: { primary_email } });

        assert.deepEqual(ids(await ctms.contacts.find({ primary_email })), [email.email_id]);
        assert.equal((await ctms.contacts.delete(primary_email))[0]?.email_id, email.email_id);
    });
}

test("an invalid request", async () => {
    await assert.rejects(ctms.contacts.create({} as Schemas["ContactInput"]), InvalidRequestError);
    await assert.rejects(ctms.contacts.find({}), /No identifiers provided/);
    // @ts-expect-error the service would ignore it
    await assert.rejects(ctms.contacts.find({ email: "ada@example.com" }), InvalidRequestError);
});

test("other operations use the token", async () => {
    const { data, error } = await ctms.api.GET("/waitlists");

    assert.equal(error, undefined);
    assert(data?.some((one) => one.name === "relay any"));
});

test("a merged contact", async () => {
    const [target = "", source = ""] = await create(2);
    const merged = await ctms.api.POST("/ctms/{email_id}/merge", {
        params: { path: { email_id: target } },
        body: { from: source, dry_run: false },
    });
    assert.equal(merged.error, undefined);

    await assert.rejects(ctms.contacts.get(source), (error) => {
        assert(error instanceof NotFoundError);
        assert.equal(error.mergedInto, target);
        return true;
    });
});

test("all pages are read, and a feed continues", async () => {
    const since = await start();
    const created = await create(5);
    const feed = ctms.updates({ since }, { limit: 2 });

    assert.deepEqual(ids(await collect(feed)), created);
    assert.deepEqual(ids(await collect(feed)), []);
    const more = await create(3);
    assert.deepEqual(ids(await collect(ctms.updates({ position: feed.position }))), more);
    assert.deepEqual(ids(await collect(feed)), more);
    assert.match(feed.position, /limit=2/);
    assert.deepEqual(ids(await collect(ctms.updates({ since: new Date(since) }))).slice(-8), [...created, ...more]);
});

test("a feed that may be read from a replica", async () => {
    const since = await start();
    const created = await create(3);
    const feed = ctms.updates({ since }, { limit: 2, staleOk: true });

    assert.deepEqual(ids(await collect(feed)), created);
    assert.match(feed.position, /stale_ok=true/);
});

test("no item is lost when a reader stops", async () => {
    const position = await newest();
    const created = await create(6);
    const feed = ctms.updates({ since: new URLSearchParams(position).get("start")! }, { limit: 2 });

    assert.deepEqual(ids(await collect(feed, 3)), created.slice(0, 3));

    assert.deepEqual(ids(await collect(ctms.updates({ position: feed.position }))), created.slice(2));
});

test("deleted contacts", async () => {
    const since = await start();
    const [kept, relevant = "", deleted = ""] = await create(3, { mofo: { mofo_relevant: true } });
    await ctms.contacts.update(relevant, { mofo: { mofo_relevant: false } });
    await ctms.contacts.delete((await ctms.contacts.get(deleted)).email.primary_email);

    const pages = await collect(ctms.updates({ since }, { deleted: true, mofoRelevant: true }).pages());

    assert.deepEqual(
        pages.flatMap((page) => ids(page.items)),
        [kept],
    );
    assert.deepEqual(
        pages.flatMap((page) => page.deleted ?? []).map((one) => one.email_id),
        [deleted],
    );
    assert.deepEqual(
        pages.flatMap((page) => page.left ?? []).map((one) => one.email_id),
        [relevant],
    );
});

test("a position before the recorded deletions", async () => {
    await assert.rejects(collect(ctms.updates({ since: "2000-01-01" }, { deleted: true })), (error) => {
        assert(error instanceof GoneError);
        assert(error.recordedSince);
        return true;
    });
});

test("events", async () => {
    const since = await start();
    const [id = ""] = await create(1, { newsletters: [{ name: "weekly" }, { name: "daily" }] });
    const feed = ctms.events({ since }, { limit: 1 });

    const found = await collect(feed);
    assert.deepEqual(found.map((one) => one.name).sort(), ["daily", "weekly"]);
    await ctms.contacts.update(id, { newsletters: "UNSUBSCRIBE" });
    const later = await collect(ctms.events({ position: feed.position }));
    assert.deepEqual([...new Set(later.map((one) => one.action))], ["unsubscribed"]);
});

test("a batch", async () => {
    const [known, unknown, fresh] = [address(), address(), address()];
    const { email } = await ctms.contacts.create({ email: { primary_email: known } });
    const contact = { email: { first_name: "Ada" } };
    const key = randomUUID();
    const items: BatchItem[] = [
        { match: { primary_email: known }, contact },
        { match: { primary_email: unknown }, mode: "update", contact },
        { match: { primary_email: fresh }, contact },
        { match: { primary_email: known }, contact },
    ];

    const results = await collect(ctms.batch(items, { chunk: 2, key }));

    assert.deepEqual(
        results.map((one) => [one.index, one.status]),
        [
            [0, "updated"],
            [1, "not_found"],
            [2, "created"],
            [3, "unchanged"],
        ],
    );
    assert.equal(results[0]?.email_id, email.email_id);
    assert.deepEqual(await collect(ctms.batch(items, { chunk: 2, key })), results); // writes nothing again
    await assert.rejects(collect(ctms.batch(items, { atomic: true })), (error) => {
        assert(error instanceof ConflictError);
        assert.deepEqual(
            (error.body["items"] as { index: number }[]).map((one) => one.index),
            [1],
        );
        return true;
    });
});

test("upsert", async () => {
    const primary_email = address();
    const created = await ctms.contacts.upsert(primary_email, { email: { primary_email } });

    const replaced = await ctms.contacts.upsert(
        primary_email,
        { email: { primary_email, first_name: "Ada" } },
        { ifMatch: created.etag! },
    );

    assert.equal(replaced.email.email_id, created.email.email_id);
    assert.equal(replaced.email.first_name, "Ada");
    await assert.rejects(
        ctms.contacts.upsert(primary_email, { email: { primary_email } }, { ifMatch: created.etag! }),
        PreconditionFailedError,
    );
});

test("a search", async () => {
    const newsletter = `news-${randomUUID()}`;
    const created = (await create(5, { newsletters: [{ name: newsletter }] })).sort();
    await create(1, { newsletters: [{ name: newsletter, subscribed: false }] });
    const where = { newsletters: newsletter };

    const found = await collect(ctms.search(where, { limit: 2, fields: ["email.primary_email"] }));
    assert.deepEqual(found.map((one) => one.email?.email_id).sort(), created);
    assert.deepEqual(Object.keys(found[0]?.email ?? {}).sort(), ["email_id", "primary_email"]);

    const search = ctms.search(where, { limit: 2 });
    await collect(search, 3);
    const rest = await collect(ctms.search(where, { position: search.position }));
    const expected = found.slice(3).map((one) => one.email?.email_id);
    assert.deepEqual(
        expected.filter((id) => !rest.some((one) => one.email?.email_id === id)),
        [],
    );
    assert.deepEqual(await ctms.count(where), { value: 5, exact: true });
    await assert.rejects(collect(ctms.search({ colour: "blue" } as object)), InvalidRequestError);
});
