-- Least privilege: three roles, for logins to be members of.
--
--   paxflow_owner    owns the schema: migrates, backs up, restores, rebuilds. Never a worker's role.
--   paxflow_worker   what `paxflow run`, `verify`, `status` and `quarantine` need: no DDL, no TRUNCATE, no
--                    temporary tables, no accounts (users, user_api_keys, user_sessions).
--   paxflow_analyst  reads MarketData, flights and airports: no bookings, no events set aside, no accounts.
--
-- Run it on paxflow's database as an administrator, before the first migration or at any time after, and
-- again whenever it has changed; twice does no harm. PostgreSQL 12 or later.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/roles.sql postgres://admin@db/market
--   CREATE ROLE market_deploy  LOGIN PASSWORD '...' IN ROLE paxflow_owner;    -- paxflow db migrate upgrade
--   CREATE ROLE market_etl     LOGIN PASSWORD '...' IN ROLE paxflow_worker;   -- paxflow run
--   CREATE ROLE alice          LOGIN PASSWORD '...' IN ROLE paxflow_analyst;  -- psql, dashboards
--
-- The roles themselves cannot log in, so there is no password in this file and a login is replaced without
-- a change of rights. The database is closed to everybody else.
--
-- Part 1: the roles, the database and the schema. Needs an administrator.

DO $roles$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['paxflow_owner', 'paxflow_worker', 'paxflow_analyst'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- Roles are shared by all databases: another one ran this at the same moment.
        END;
    END LOOP;
    -- An administrator who is no superuser may hand tables over only to a role whose rights he has.
    IF NOT pg_has_role('paxflow_owner', 'USAGE') THEN
        EXECUTE format('GRANT paxflow_owner TO %I', current_user);
    END IF;

    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, paxflow_owner, paxflow_worker, paxflow_analyst', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO paxflow_owner, paxflow_worker, paxflow_analyst', current_database());
    -- The airports are loaded through a temporary table.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO paxflow_owner', current_database());
END
$roles$;

-- Before PostgreSQL 15 everybody may create tables there.
REVOKE ALL ON SCHEMA public FROM PUBLIC, paxflow_worker, paxflow_analyst;
GRANT USAGE, CREATE ON SCHEMA public TO paxflow_owner;
GRANT USAGE ON SCHEMA public TO paxflow_worker, paxflow_analyst;

-- Part 2: the tables. Needs a member of paxflow_owner; paxflow runs it by itself after each migration and
-- restore, so that a table has its rights as soon as it is there. What is not listed is the owner's alone:
-- there are no default privileges, which would open a later table with personal data to everybody.

DO $rights$
DECLARE
    statement text;
BEGIN
    -- Only where part 1 was run: roles are shared by all databases, and another one may do without them.
    IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('paxflow_owner', 'paxflow_worker', 'paxflow_analyst')) < 3 THEN
        RETURN;
    END IF;
    IF NOT has_schema_privilege('paxflow_owner', 'public', 'CREATE') OR has_schema_privilege('paxflow_analyst', 'public', 'CREATE') THEN
        RETURN;
    END IF;

    -- Whoever made it: the owner's role owns it, not the login that a migration happened to run under.
    -- Sequences follow their tables; what belongs to an extension, or to somebody whose things are not ours to give, stays as it is.
    FOR statement IN
        SELECT format('ALTER %s public.%I OWNER TO paxflow_owner', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.relname)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND c.relowner <> 'paxflow_owner'::regrole AND pg_has_role(c.relowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        UNION ALL
        SELECT format('ALTER ROUTINE public.%I(%s) OWNER TO paxflow_owner', p.proname, pg_get_function_identity_arguments(p.oid))
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND p.proowner <> 'paxflow_owner'::regrole AND pg_has_role(p.proowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE statement;
    END LOOP;

    -- What was listed once and is no more ends here. In the same transaction as the grants below, so a
    -- worker notices nothing.
    FOR statement IN
        SELECT format('REVOKE ALL ON public.%I FROM PUBLIC, paxflow_worker, paxflow_analyst', c.relname)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relowner = 'paxflow_owner'::regrole
    LOOP
        EXECUTE statement;
    END LOOP;

    FOR statement IN
        SELECT format('GRANT %s ON public.%I TO %I', granted.rights, granted.relation, granted.role)
        FROM (VALUES
            -- Which schema and which airports these are.
            ('paxflow_worker', 'SELECT', '_sqlx_migrations'),
            ('paxflow_worker', 'SELECT', 'reference_data'),
            ('paxflow_worker', 'SELECT', 'airports'),
            -- Rows are never deleted: tombstones stay.
            ('paxflow_worker', 'SELECT, INSERT, UPDATE', 'flights'),
            ('paxflow_worker', 'SELECT, INSERT, UPDATE', 'bookings'),
            -- No row for nothing.
            ('paxflow_worker', 'SELECT, INSERT, UPDATE, DELETE', 'flight_demand'),
            -- What is settled for long is forgotten.
            ('paxflow_worker', 'SELECT, INSERT, UPDATE, DELETE', 'quarantined_events'),
            ('paxflow_worker', 'SELECT, INSERT, UPDATE', 'worker_progress'),
            ('paxflow_worker', 'SELECT, INSERT', 'verifications'),
            ('paxflow_worker', 'SELECT', 'market_data'),
            ('paxflow_worker', 'SELECT', 'market_fares'),
            ('paxflow_worker', 'SELECT', 'market_activity'),
            ('paxflow_worker', 'SELECT', 'market_data_history'),
            ('paxflow_worker', 'SELECT', 'booking_curve'),
            ('paxflow_worker', 'SELECT', 'market_capacity_by_cabin'),
            ('paxflow_worker', 'SELECT', 'pending_bookings'),

            ('paxflow_analyst', 'SELECT', 'airports'),
            ('paxflow_analyst', 'SELECT', 'flights'),
            -- Views read with the rights of their owner, so bookings stay closed.
            ('paxflow_analyst', 'SELECT', 'market_data'),
            ('paxflow_analyst', 'SELECT', 'market_fares'),
            ('paxflow_analyst', 'SELECT', 'market_activity'),
            ('paxflow_analyst', 'SELECT', 'market_data_history'),
            ('paxflow_analyst', 'SELECT', 'booking_curve'),
            ('paxflow_analyst', 'SELECT', 'market_capacity_by_cabin'),
            -- Keys of bookings, and nothing about the passenger.
            ('paxflow_analyst', 'SELECT', 'pending_bookings')
        ) AS granted (role, rights, relation)
        WHERE to_regclass(format('public.%I', granted.relation)) IS NOT NULL
    LOOP
        EXECUTE statement;
    END LOOP;
END
$rights$;
