-- A statement for each object in schema public that drops it, wherever it comes in the order: what the
-- ones before have taken along is skipped. No row if the schema is empty; extensions do not count.
WITH object AS (
    SELECT 'pg_class'::regclass AS catalog, c.oid,
           format('%s IF EXISTS public.%I',
                  CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                 WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
                  c.relname) AS name
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid,
           format('ROUTINE IF EXISTS public.%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'pg_collation'::regclass, l.oid, format('COLLATION IF EXISTS public.%I', l.collname)
    FROM pg_collation l
    WHERE l.collnamespace = 'public'::regnamespace
    UNION ALL
    -- Types that no table brings along.
    SELECT 'pg_type'::regclass, t.oid, format('TYPE IF EXISTS public.%I', t.typname)
    FROM pg_type t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('d', 'e', 'r')
)
SELECT 'DROP ' || o.name || ' CASCADE'
FROM object o
-- e: belongs to an extension; i: goes with its table.
WHERE NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = o.catalog AND d.objid = o.oid AND d.deptype IN ('e', 'i'))
ORDER BY 1
