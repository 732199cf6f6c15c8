"""The exact schema of existing deployments

The databases of existing deployments are at this revision: `flask db upgrade` continues from here.

Revision ID: 2b00e4069aea
Revises:
"""

from alembic import op

revision = "2b00e4069aea"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT gen_random_uuid()';

CREATE TABLE emails (
    email_id uuid DEFAULT uuid_generate_v4() NOT NULL PRIMARY KEY,
    primary_email varchar(255) NOT NULL UNIQUE,
    basket_token varchar(255) UNIQUE,
    sfdc_id varchar(255),
    first_name varchar(255),
    last_name varchar(255),
    mailing_country varchar(255),
    email_format varchar(1),
    email_lang varchar(5),
    has_opted_out_of_email boolean,
    unsubscribe_reason text,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL,
    double_opt_in boolean
);
CREATE INDEX bulk_read_index ON emails (update_timestamp, email_id);
CREATE UNIQUE INDEX idx_email_primary_unique_email_lower ON emails (lower(primary_email::text));
CREATE INDEX ix_emails_sfdc_id ON emails (sfdc_id);

CREATE TABLE amo (
    id serial PRIMARY KEY,
    email_id uuid NOT NULL UNIQUE REFERENCES emails (email_id),
    add_on_ids varchar(500),
    display_name varchar(255),
    email_opt_in boolean,
    language varchar(5),
    last_login date,
    location varchar(255),
    profile_url varchar(40),
    "user" boolean,
    user_id varchar(40),
    username varchar(100),
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL
);
CREATE INDEX ix_amo_user_id ON amo (user_id);

CREATE TABLE fxa (
    id serial PRIMARY KEY,
    fxa_id varchar(255) UNIQUE,
    email_id uuid NOT NULL UNIQUE REFERENCES emails (email_id),
    primary_email varchar(255),
    created_date varchar(50),
    lang varchar(255),
    first_service varchar(50),
    account_deleted boolean,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL
);
CREATE INDEX idx_fxa_primary_email_lower ON fxa (lower(primary_email::text));
CREATE INDEX ix_fxa_primary_email ON fxa (primary_email);

CREATE TABLE mofo (
    id serial PRIMARY KEY,
    email_id uuid NOT NULL UNIQUE REFERENCES emails (email_id),
    mofo_email_id varchar(255) UNIQUE,
    mofo_contact_id varchar(255),
    mofo_relevant boolean,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL
);
CREATE INDEX ix_mofo_mofo_contact_id ON mofo (mofo_contact_id);

CREATE TABLE newsletters (
    id serial PRIMARY KEY,
    email_id uuid NOT NULL REFERENCES emails (email_id),
    name varchar(255) NOT NULL,
    subscribed boolean,
    format varchar(1),
    lang varchar(5),
    source text,
    unsub_reason text,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT uix_email_name UNIQUE (email_id, name)
);

CREATE TABLE waitlists (
    id serial PRIMARY KEY,
    email_id uuid NOT NULL REFERENCES emails (email_id),
    name varchar(255) NOT NULL,
    source text,
    fields json DEFAULT '{}'::json NOT NULL,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL,
    subscribed boolean NOT NULL,
    unsub_reason text,
    CONSTRAINT uix_wl_email_name UNIQUE (email_id, name)
);

CREATE TABLE api_client (
    client_id varchar(255) NOT NULL PRIMARY KEY,
    email varchar(255) NOT NULL,
    enabled boolean,
    hashed_secret varchar NOT NULL,
    create_timestamp timestamptz DEFAULT now() NOT NULL,
    update_timestamp timestamptz DEFAULT now() NOT NULL,
    last_access timestamptz
);

CREATE TABLE roles (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    description text
);

CREATE TABLE permissions (
    id serial PRIMARY KEY,
    name varchar(255) NOT NULL UNIQUE,
    description text
);

CREATE TABLE api_client_roles (
    id serial PRIMARY KEY,
    api_client_id varchar(255) NOT NULL REFERENCES api_client (client_id) ON DELETE CASCADE,
    role_id integer NOT NULL REFERENCES roles (id) ON DELETE CASCADE
);

CREATE TABLE role_permissions (
    id serial PRIMARY KEY,
    role_id integer NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    permission_id integer NOT NULL REFERENCES permissions (id) ON DELETE CASCADE
);
"""

DOWNGRADE = """
DROP TABLE role_permissions, api_client_roles, permissions, roles, api_client;
DROP TABLE waitlists, newsletters, mofo, fxa, amo, emails;
DROP FUNCTION uuid_generate_v4();
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
