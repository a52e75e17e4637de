-- The tables of evergrant, schema 1.0, for PostgreSQL and what speaks its protocol. evergrant makes them by itself where
-- its user may create tables. Where it may not, run this once, in the schema that is first in that user's search_path:
--
--     psql "$ADMIN_URL" -f postgres.sql
--
-- and let the user use them:
--
--     GRANT SELECT, INSERT, UPDATE, DELETE ON evergrant_session TO the_user;
--     GRANT SELECT ON evergrant_meta TO the_user;
--
-- The secret part of a session is in the column "sealed", encrypted with a key that is not in the database.

CREATE TABLE IF NOT EXISTS evergrant_session (
    namespace     text COLLATE "C" NOT NULL,
    session       text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    state         text NOT NULL,
    expires_at_ms bigint,
    record        text NOT NULL,
    sealed        bytea NOT NULL,
    PRIMARY KEY (namespace, session)
);

CREATE TABLE IF NOT EXISTS evergrant_meta (
    name  text PRIMARY KEY,
    value text NOT NULL
);

INSERT INTO evergrant_meta (name, value) VALUES ('schema', '1.0') ON CONFLICT DO NOTHING;
