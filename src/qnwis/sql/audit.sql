-- The audit trail in PostgreSQL 14 or newer. Run once by the owner of the database, who is not the role that workers
-- use: that may read and append, and neither change, delete, nor drop anything.
--     qnwis-continuity audit schema --writer qnwis_audit | psql -v ON_ERROR_STOP=1 …
-- Triggers refuse the owner too what is no append; who removes them is found out by `audit verify`.

BEGIN;

CREATE SCHEMA qnwis_audit;

CREATE TABLE qnwis_audit.records (
    sequence   bigint PRIMARY KEY,
    audit_id   text NOT NULL UNIQUE,
    run_id     text NOT NULL,
    operation  text NOT NULL,
    record     text NOT NULL,  -- canonical JSON, or what it is sealed in
    UNIQUE (run_id, operation)
);

CREATE TABLE qnwis_audit.artefacts (
    sequence   bigint NOT NULL REFERENCES qnwis_audit.records,
    name       text NOT NULL,
    content    text NOT NULL,
    PRIMARY KEY (sequence, name)
);

CREATE TABLE qnwis_audit.heads (
    size       bigint PRIMARY KEY,
    peaks      bytea NOT NULL,  -- hashes of the tree's complete subtrees, the largest first
    head       text NOT NULL    -- canonical JSON of the signed tree head
);

CREATE FUNCTION qnwis_audit.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit % are never changed and never deleted', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION qnwis_audit.only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM qnwis_audit.records) THEN
        RAISE EXCEPTION 'audit records are only appended' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER only_grow BEFORE INSERT ON qnwis_audit.records
    FOR EACH ROW EXECUTE FUNCTION qnwis_audit.only_grow();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON qnwis_audit.records
    FOR EACH STATEMENT EXECUTE FUNCTION qnwis_audit.refuse();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON qnwis_audit.artefacts
    FOR EACH STATEMENT EXECUTE FUNCTION qnwis_audit.refuse();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON qnwis_audit.heads
    FOR EACH STATEMENT EXECUTE FUNCTION qnwis_audit.refuse();

GRANT USAGE ON SCHEMA qnwis_audit TO :writer;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA qnwis_audit TO :writer;

COMMIT;
