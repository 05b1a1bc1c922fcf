-- A database as one region of an active/active cluster. PostgreSQL 16 or newer, wal_level = logical.
--
-- Run it once in each region's database, as a superuser and in one transaction, on equal copies of the data:
--     \i active_active.sql
--     SELECT qnwis.found_region('eu');              -- the name of this region, of which all others are told
--     SELECT qnwis.cover('shop.item');              -- each table that is written in several regions
-- Then subscribe each region to each other one:
--     CREATE SUBSCRIPTION qnwis_from_us CONNECTION '…' PUBLICATION qnwis
--         WITH (origin = none, copy_data = false, slot_name = qnwis_to_eu);
-- A slot is named for the region that receives, in small letters, with _ for what no such name may have.
--
-- How it works. A covered table carries a vector clock, a stamp and the region of each row's last write. A local
-- write ticks the clock, and is told to the other regions as a whole row in qnwis.change, the one table that is
-- published. Where it arrives, a trigger compares it with the row that is there. Applied by PostgreSQL itself the
-- last to arrive would win, an insert of a key that is there would stop the replication, and an update that comes
-- before its insert (three regions) would be lost without a word; a large value that an update did not change would
-- come together with another version's columns.
--
-- Which triggers fire where. Ordinary triggers do not fire for what a subscription applies (it runs with
-- session_replication_role = replica): so what arrives is neither ticked nor told again, and `origin = none` keeps
-- it from being sent on as well. The one trigger that is enabled as REPLICA fires for nothing else.
--
-- The stamp of a write is later than that of the version under it, even where this machine's clock runs behind.
-- So the later of two versions is never before the other by vector clock, and every region that takes the later one
-- (at the same microsecond: the one whose region sorts higher) has the same row in the end. Where the author of the
-- later one had not seen the other, that is a conflict: both versions are kept in qnwis.conflict.
-- `qnwis.continuity.conflicts` says the same in Python.
--
-- What is not covered: TRUNCATE and a change of a row's key are refused. Foreign keys are not checked where a write
-- arrives, as in any logical replication. Sequences are not replicated: give each region numbers of its own. Tables
-- with a further unique or exclusion constraint are refused, for two regions can each satisfy it and not both.
-- Deletions leave a tombstone, kept until it is pruned (qnwis.prune). A write made with session_replication_role = replica is told to nobody.

CREATE SCHEMA qnwis;

CREATE TABLE qnwis.region (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' AND name <> 'founding')
);

CREATE TABLE qnwis.covered (
    relation text PRIMARY KEY,
    key_columns text[] NOT NULL,
    key_matches text NOT NULL  -- a condition on the row `t`; $1 is the key as jsonb
);

-- A row as one write left it; no image: it was deleted.
CREATE TYPE qnwis.version AS (region text COLLATE "C", clock jsonb, written_at timestamptz, image jsonb);

CREATE TABLE qnwis.tombstone (
    relation text,
    key jsonb,
    deleted qnwis.version NOT NULL,
    PRIMARY KEY (relation, key)
);

CREATE TABLE qnwis.conflict (
    relation text NOT NULL,
    key jsonb NOT NULL,
    winner qnwis.version NOT NULL,
    loser qnwis.version NOT NULL,
    why text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_at timestamptz
);
CREATE INDEX ON qnwis.conflict (relation, key);

-- What is told to the other regions. A row is deleted as soon as it is in the log, from which it is sent.
CREATE TABLE qnwis.change (relation text NOT NULL, key jsonb NOT NULL, version qnwis.version NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE PUBLICATION qnwis FOR TABLE qnwis.change WITH (publish = 'insert');


-- Versions -------------------------------------------------------------------------------------------------------

CREATE FUNCTION qnwis.merge(one jsonb, other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(region, writes), '{}')
    FROM (
        SELECT key AS region, max(value::bigint) AS writes
        FROM (SELECT * FROM jsonb_each_text(one) UNION ALL SELECT * FROM jsonb_each_text(other)) AS both_clocks
        GROUP BY key
    ) AS merged
$$;

-- Which version stays. The clock that the row has from then on is the merged one.
CREATE FUNCTION qnwis.resolve(
    one qnwis.version, other qnwis.version, OUT winner qnwis.version, OUT loser qnwis.version, OUT why text
) LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen bigint;   -- of the loser's region's writes, by the winner's author
    wrote bigint;  -- the number of the loser's
BEGIN
    IF (one.written_at, one.region) = (other.written_at, other.region) THEN
        winner := one;
        winner.clock := qnwis.merge(one.clock, other.clock);
        loser := winner;
        why := 'seen';
        RETURN;
    END IF;
    IF (one.written_at, one.region COLLATE "C") > (other.written_at, other.region COLLATE "C") THEN
        winner := one;
        loser := other;
    ELSE
        winner := other;
        loser := one;
    END IF;
    seen := coalesce((winner.clock ->> loser.region)::bigint, 0);
    wrote := coalesce((loser.clock ->> loser.region)::bigint, 0);
    why := CASE
        WHEN seen > wrote OR seen = wrote AND winner.region <> loser.region THEN 'seen'
        WHEN winner.written_at > loser.written_at THEN 'later'
        ELSE 'region'
    END;
END
$$;

-- A further write of this region on top of a version (none: the first write of a row).
CREATE FUNCTION qnwis.next_version(before qnwis.version, image jsonb) RETURNS qnwis.version
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here text;
    clock jsonb := coalesce(before.clock, '{}');
BEGIN
    SELECT name INTO STRICT here FROM qnwis.region;
    clock := clock || jsonb_build_object(here, coalesce((clock ->> here)::bigint, 0) + 1);
    RETURN (
        here, clock, greatest(clock_timestamp(), before.written_at + interval '1 microsecond'), image
    )::qnwis.version;
END
$$;

CREATE FUNCTION qnwis.key_of(relation text, whole jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_object_agg(name, whole -> name)
    FROM qnwis.covered AS c, unnest(c.key_columns) AS name
    WHERE c.relation = key_of.relation
$$;

CREATE FUNCTION qnwis.version_of(whole jsonb) RETURNS qnwis.version
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (
        whole ->> 'qnwis_region', whole -> 'qnwis_clock', (whole ->> 'qnwis_written_at')::timestamptz,
        whole - '{qnwis_region,qnwis_clock,qnwis_written_at}'::text[]
    )::qnwis.version
$$;

-- A table's columns that can be given values, each with this before it.
CREATE FUNCTION qnwis.columns_of(relation text, before text, into_old_row boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(before || quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = relation::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        AND NOT (into_old_row AND attidentity = 'a')
$$;

-- What the image does not name stays as it is: a column that the other region does not have yet. Returns whether
-- there was such a row.
CREATE FUNCTION qnwis.write_over(relation text, key jsonb, whole jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    matches text;
    written bigint;
BEGIN
    SELECT c.key_matches INTO STRICT matches FROM qnwis.covered AS c WHERE c.relation = write_over.relation;
    EXECUTE format(
        'UPDATE %s AS t SET (%s) = (SELECT %s FROM jsonb_populate_record(t, $2) AS n) WHERE %s',
        relation, qnwis.columns_of(relation, '', true), qnwis.columns_of(relation, 'n.', true), matches
    ) USING key, whole;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written = 1;
END
$$;

-- Returns whether the key was free.
CREATE FUNCTION qnwis.write_new(relation text, whole jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys text;
    written bigint;
BEGIN
    SELECT (SELECT string_agg(quote_ident(k), ', ') FROM unnest(c.key_columns) AS k)
    INTO STRICT keys FROM qnwis.covered AS c WHERE c.relation = write_new.relation;
    EXECUTE format(
        'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE'
        ' SELECT %s FROM jsonb_populate_record(NULL::%s, $1) AS n ON CONFLICT (%s) DO NOTHING',
        relation, qnwis.columns_of(relation, '', false), qnwis.columns_of(relation, 'n.', false), relation, keys
    ) USING whole;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written = 1;
END
$$;

CREATE FUNCTION qnwis.erase(relation text, key jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    matches text;
BEGIN
    SELECT c.key_matches INTO STRICT matches FROM qnwis.covered AS c WHERE c.relation = erase.relation;
    EXECUTE format('DELETE FROM %s AS t WHERE %s', relation, matches) USING key;
END
$$;


-- Local writes ---------------------------------------------------------------------------------------------------

CREATE FUNCTION qnwis.lock_class() RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1903126903 $$;

-- Few, for a transaction holds a lock of each bucket that it inserts into.
CREATE FUNCTION qnwis.bucket(relation text, key jsonb) RETURNS int
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT abs(hashtext(relation || key::text) % 64) $$;

CREATE FUNCTION qnwis.stamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_table text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    this_key jsonb := qnwis.key_of(this_table, to_jsonb(NEW));
    before qnwis.version;
    buried qnwis.version;
    now_is qnwis.version;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF this_key <> qnwis.key_of(this_table, to_jsonb(OLD)) THEN
            RAISE EXCEPTION 'the key of a row of % cannot be changed: it is written in several regions', this_table
                USING HINT = 'Delete the row, and insert another.', ERRCODE = 'feature_not_supported';
        END IF;
        before := (OLD.qnwis_region, OLD.qnwis_clock, OLD.qnwis_written_at, NULL)::qnwis.version;
    ELSE
        -- A deletion of what is not here yet waits for this insertion (`receive`), or this for the deletion.
        PERFORM pg_advisory_xact_lock_shared(qnwis.lock_class(), qnwis.bucket(this_table, this_key));
    END IF;
    -- The clock of a row that was deleted goes on: a count must not be used twice.
    DELETE FROM qnwis.tombstone AS t WHERE t.relation = this_table AND t.key = this_key
    RETURNING (t.deleted).* INTO buried;
    IF buried.clock IS NOT NULL THEN
        before.clock := qnwis.merge(coalesce(before.clock, '{}'), buried.clock);
        before.written_at := greatest(before.written_at, buried.written_at);
    END IF;
    now_is := qnwis.next_version(before, NULL);
    NEW.qnwis_region := now_is.region;
    NEW.qnwis_clock := now_is.clock;
    NEW.qnwis_written_at := now_is.written_at;
    RETURN NEW;
END
$$;

CREATE FUNCTION qnwis.tell_change(relation text, key jsonb, version qnwis.version) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place tid;
BEGIN
    INSERT INTO qnwis.change AS c VALUES (relation, key, version) RETURNING c.ctid INTO place;
    DELETE FROM qnwis.change AS c WHERE c.ctid = place;
END
$$;

CREATE FUNCTION qnwis.tell() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres AS $$
DECLARE
    this_table text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    this_key jsonb := qnwis.key_of(this_table, to_jsonb(coalesce(NEW, OLD)));
    written qnwis.version;
BEGIN
    IF TG_OP = 'DELETE' THEN
        written := qnwis.next_version(
            (OLD.qnwis_region, OLD.qnwis_clock, OLD.qnwis_written_at, NULL)::qnwis.version, NULL
        );
        INSERT INTO qnwis.tombstone VALUES (this_table, this_key, written)
        ON CONFLICT ON CONSTRAINT tombstone_pkey DO UPDATE SET deleted = EXCLUDED.deleted;
    ELSIF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM qnwis.tombstone AS t WHERE t.relation = this_table AND t.key = this_key
    ) THEN
        -- INSERT … ON CONFLICT DO UPDATE was stamped while the row was there still, and found it deleted.
        PERFORM qnwis.write_over(this_table, this_key, '{}');  -- stamps it anew, and tells it
        RETURN NULL;
    ELSE
        written := qnwis.version_of(to_jsonb(NEW));
    END IF;
    PERFORM qnwis.tell_change(this_table, this_key, written);
    RETURN NULL;
END
$$;

CREATE FUNCTION qnwis.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% is refused: the table is written in several regions',
        TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING HINT = 'Use DELETE.', ERRCODE = 'feature_not_supported';
END
$$;


-- What arrives ---------------------------------------------------------------------------------------------------

-- The version that is there, locked; NULL where the key never was. The tombstones are asked before the row, for a
-- local insertion takes its key's away; and again after it, for a local deletion leaves one.
CREATE FUNCTION qnwis.present(relation text, key jsonb) RETURNS qnwis.version
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres AS $$
DECLARE
    matches text;
    whole jsonb;
    buried qnwis.version;
BEGIN
    SELECT c.key_matches INTO matches FROM qnwis.covered AS c WHERE c.relation = present.relation;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % of another region is not covered here', relation
            USING HINT = format('Make it here, and SELECT qnwis.cover(%L).', relation);
    END IF;
    FOR attempt IN 1..2 LOOP
        SELECT (t.deleted).* INTO buried FROM qnwis.tombstone AS t
        WHERE t.relation = present.relation AND t.key = present.key FOR UPDATE;
        EXIT WHEN buried.clock IS NOT NULL;
        EXECUTE format('SELECT to_jsonb(t) FROM %s AS t WHERE %s FOR UPDATE', relation, matches)
        INTO whole USING key;
        IF whole IS NOT NULL THEN
            RETURN qnwis.version_of(whole);
        END IF;
    END LOOP;
    RETURN buried;
END
$$;

-- Make a version the one that is there. False where a local write of the key came in between.
CREATE FUNCTION qnwis.put(relation text, key jsonb, version qnwis.version) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whole jsonb := version.image || jsonb_build_object(
        'qnwis_region', version.region, 'qnwis_clock', version.clock, 'qnwis_written_at', version.written_at
    );
BEGIN
    IF version.image IS NULL THEN
        PERFORM qnwis.erase(relation, key);
        INSERT INTO qnwis.tombstone VALUES (relation, key, version)
        ON CONFLICT ON CONSTRAINT tombstone_pkey DO UPDATE SET deleted = EXCLUDED.deleted;
        RETURN true;
    END IF;
    RETURN qnwis.write_over(relation, key, whole) OR qnwis.write_new(relation, whole);
END
$$;

CREATE FUNCTION qnwis.receive() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there qnwis.version;
    found record;
    stays qnwis.version;
BEGIN
    LOOP
        there := qnwis.present(NEW.relation, NEW.key);
        IF there.clock IS NULL AND (NEW.version).image IS NULL THEN
            PERFORM pg_advisory_xact_lock(qnwis.lock_class(), qnwis.bucket(NEW.relation, NEW.key));
            there := qnwis.present(NEW.relation, NEW.key);
        END IF;
        IF there.clock IS NULL THEN
            CONTINUE WHEN NOT qnwis.put(NEW.relation, NEW.key, NEW.version);
            EXIT WHEN (NEW.version).image IS NULL OR NOT EXISTS (
                SELECT FROM qnwis.tombstone AS t WHERE t.relation = NEW.relation AND t.key = NEW.key
            );
            -- Inserted and deleted here since it was looked for.
            PERFORM qnwis.erase(NEW.relation, NEW.key);
            CONTINUE;
        END IF;
        SELECT * INTO found FROM qnwis.resolve(there, NEW.version);
        stays := found.winner;
        stays.clock := qnwis.merge(there.clock, (NEW.version).clock);
        IF stays IS DISTINCT FROM there THEN
            IF there.image IS NULL AND stays.image IS NOT NULL THEN
                DELETE FROM qnwis.tombstone AS t WHERE t.relation = NEW.relation AND t.key = NEW.key;
            END IF;
            CONTINUE WHEN NOT qnwis.put(NEW.relation, NEW.key, stays);
        END IF;
        IF found.why <> 'seen' THEN
            INSERT INTO qnwis.conflict VALUES (NEW.relation, NEW.key, found.winner, found.loser, found.why);
        END IF;
        EXIT;
    END LOOP;
    RETURN NULL;  -- the change itself is kept nowhere
END
$$;

CREATE TRIGGER receive BEFORE INSERT ON qnwis.change FOR EACH ROW EXECUTE FUNCTION qnwis.receive();
ALTER TABLE qnwis.change ENABLE REPLICA TRIGGER receive;


-- For people -----------------------------------------------------------------------------------------------------

CREATE FUNCTION qnwis.found_region(name text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO qnwis.region VALUES (true, name)
$$;

-- Rows that are there already count as one and the same write in every region: begin with equal copies.
CREATE FUNCTION qnwis.cover(table_name regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_table text;
    keys text[];
    more text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO this_table
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = table_name AND c.relkind = 'r' AND NOT c.relispartition;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no ordinary table', table_name USING HINT = 'Cover tables without partitions.';
    END IF;
    SELECT array_agg(a.attname ORDER BY array_position(i.indkey::int2[], a.attnum)) INTO keys
    FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = table_name AND i.indisprimary;
    IF keys IS NULL THEN
        RAISE EXCEPTION '% has no primary key', this_table USING HINT = 'Give it one that no two regions use.';
    END IF;
    SELECT string_agg(indexrelid::regclass::text, ', ') INTO more FROM pg_index
    WHERE indrelid = table_name AND NOT indisprimary AND (indisunique OR indisexclusion);
    IF more IS NOT NULL THEN
        RAISE EXCEPTION '% has further unique indexes: %', this_table, more
            USING HINT = 'Two regions can each satisfy them, and both together not. Drop them, or add the region.';
    END IF;
    EXECUTE format(
        'ALTER TABLE %s'
        ' ADD qnwis_region text NOT NULL DEFAULT ''founding'','
        ' ADD qnwis_clock jsonb NOT NULL DEFAULT ''{"founding": 1}'','
        ' ADD qnwis_written_at timestamptz NOT NULL DEFAULT ''1970-01-01 00:00:00+00''',
        this_table
    );
    INSERT INTO qnwis.covered
    SELECT this_table, keys, string_agg(
        format('t.%1$I = (jsonb_populate_record(NULL::%2$s, $1)).%1$I', k, this_table), ' AND '
    ) FROM unnest(keys) AS k;
    EXECUTE format(
        'CREATE TRIGGER qnwis_stamp BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION qnwis.stamp()', this_table
    );
    EXECUTE format(
        'CREATE TRIGGER qnwis_tell AFTER INSERT OR UPDATE OR DELETE ON %s'
        ' FOR EACH ROW EXECUTE FUNCTION qnwis.tell()', this_table
    );
    EXECUTE format(
        'CREATE TRIGGER qnwis_truncate BEFORE TRUNCATE ON %s EXECUTE FUNCTION qnwis.refuse_truncate()', this_table
    );
END
$$;

-- Tell every row and every deletion of a table again, as they are: after a subscription was made anew, or where
-- regions differ. Whoever has it already takes no notice. Returns how many.
CREATE FUNCTION qnwis.announce(relation text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres AS $$
DECLARE
    told bigint := 0;
    whole jsonb;
    buried record;
BEGIN
    FOR whole IN EXECUTE format('SELECT to_jsonb(t) FROM %s AS t', relation) LOOP
        PERFORM qnwis.tell_change(relation, qnwis.key_of(relation, whole), qnwis.version_of(whole));
        told := told + 1;
    END LOOP;
    FOR buried IN SELECT t.key, t.deleted FROM qnwis.tombstone AS t WHERE t.relation = announce.relation LOOP
        PERFORM qnwis.tell_change(relation, buried.key, buried.deleted);
        told := told + 1;
    END LOOP;
    RETURN told;
END
$$;

-- The write that left each covered row as it is, deletions included: where two regions differ, they need not agree
-- for long while writes go on. It reads all of them.
CREATE FUNCTION qnwis.writes() RETURNS TABLE (relation text, key jsonb, region text, written_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    each record;
BEGIN
    FOR each IN SELECT c.relation, c.key_columns FROM qnwis.covered AS c LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L, jsonb_build_object(%s), t.qnwis_region, t.qnwis_written_at FROM %s AS t',
            each.relation,
            (SELECT string_agg(format('%1$L, t.%1$I', k), ', ') FROM unnest(each.key_columns) AS k),
            each.relation
        );
    END LOOP;
    RETURN QUERY SELECT t.relation, t.key, (t.deleted).region::text, (t.deleted).written_at FROM qnwis.tombstone AS t;
END
$$;

-- Write a row by hand, as an ordinary local write, if it has just the version that is expected. No image: delete it.
CREATE FUNCTION qnwis.swap(relation text, key jsonb, expects_region text, expects_at timestamptz, image jsonb)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there qnwis.version := qnwis.present(relation, key);
    -- Of no importance, for the triggers write them; but a row that is inserted has to have some.
    whole jsonb := image || jsonb_build_object(
        'qnwis_region', there.region, 'qnwis_clock', there.clock, 'qnwis_written_at', there.written_at
    );
BEGIN
    IF (there.region, there.written_at) IS DISTINCT FROM (expects_region, expects_at) THEN
        RETURN false;
    ELSIF image IS NULL THEN
        PERFORM qnwis.erase(relation, key);
        RETURN true;
    END IF;
    RETURN qnwis.write_over(relation, key, whole) OR qnwis.write_new(relation, whole);
END
$$;

-- Deletions that were made longer ago than this, by the clock of this machine.
CREATE FUNCTION qnwis.tombstones(older_than interval)
RETURNS TABLE (relation text, key jsonb, region text, written_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.relation, t.key, (t.deleted).region::text, (t.deleted).written_at FROM qnwis.tombstone AS t
    WHERE (t.deleted).written_at < clock_timestamp() - older_than
$$;

-- Forget deletions, each {"relation", "key", "region", "written_at"}, the key as text. `qnwis-continuity conflicts
-- prune` does it in all regions at once. By hand, in this order: read qnwis.tombstones in every region, and take only
-- those that all of them have; then read pg_current_wal_lsn() in every region; wait until every region has confirmed
-- that of every other one; then prune in each, with its own position as `told`. Why: a deletion that a region has not
-- seen must stay, and an older write of the row that is still under way would bring the row back. What is checked here
-- is that all who read from this region have read so far. Returns how many; one whose row was written or deleted anew
-- is left alone.
CREATE FUNCTION qnwis.prune(buried jsonb, told pg_lsn) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    behind text;
    pruned bigint;
BEGIN
    SELECT string_agg(s.slot_name, ', ') INTO behind FROM pg_replication_slots AS s
    WHERE s.database = current_database() AND s.slot_name LIKE 'qnwis\_to\_%'
        AND coalesce(s.confirmed_flush_lsn < told, true);
    IF behind IS NOT NULL THEN
        RAISE EXCEPTION 'not read as far as %: %', told, behind
            USING HINT = 'Wait until these subscriptions have caught up.', ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM qnwis.tombstone AS t
    USING jsonb_to_recordset(buried) AS b (relation text, key text, region text, written_at timestamptz)
    WHERE t.relation = b.relation AND t.key = b.key::jsonb
        AND ((t.deleted).region, (t.deleted).written_at) = (b.region, b.written_at);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
