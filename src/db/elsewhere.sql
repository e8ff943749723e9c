-- What is in other schemas: relations, their columns and constraints, and routines, by name.
WITH others AS (
    SELECT oid
    FROM pg_namespace
    WHERE nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'
)
SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'relation' END, c.oid::regclass) AS name
FROM pg_class c
JOIN others n ON n.oid = c.relnamespace
UNION ALL
SELECT format('column %I of %s', a.attname, a.attrelid::regclass)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid AND c.relkind <> 'i'
JOIN others n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('constraint %I of %s', t.conname, t.conrelid::regclass)
FROM pg_constraint t
JOIN pg_class c ON c.oid = t.conrelid
JOIN others n ON n.oid = c.relnamespace
UNION ALL
SELECT format('routine %s', p.oid::regprocedure)
FROM pg_proc p
JOIN others n ON n.oid = p.pronamespace
