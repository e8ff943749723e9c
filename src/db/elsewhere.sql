-- What is in other schemas, by name: relations with their columns, defaults, constraints, triggers and policies, routines and types;
-- and which tables are published.
WITH others AS (
    SELECT oid, nspname
    FROM pg_namespace
    WHERE nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'
),
relations AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c
    JOIN others n ON n.oid = c.relnamespace
    WHERE c.relkind <> 'i'
)
SELECT name FROM relations
UNION ALL
SELECT format('column %I of %s', a.attname, r.name) || CASE WHEN a.atthasdef THEN ' with a default' ELSE '' END
FROM pg_attribute a
JOIN relations r ON r.oid = a.attrelid
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('constraint %I of %s', t.conname, r.name) FROM pg_constraint t JOIN relations r ON r.oid = t.conrelid
UNION ALL
SELECT format('trigger %I of %s', t.tgname, r.name) FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT format('policy %I of %s', p.polname, r.name) FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT format('routine %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
FROM pg_proc p
JOIN others n ON n.oid = p.pronamespace
UNION ALL
SELECT format('type %I.%I', n.nspname, t.typname) FROM pg_type t JOIN others n ON n.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r')
UNION ALL
SELECT format('publication %I of %s', p.pubname, r.prrelid::regclass)
FROM pg_publication_rel r
JOIN pg_publication p ON p.oid = r.prpubid
