-- The indexes behind keys are part of these.
SELECT format('INDEX %I', i.relname) AS identity,
       format('TABLE %I', c.relname) AS owner,
       d.definition,
       d.definition AS create_sql,
       format('DROP INDEX %I', i.relname) AS drop_sql,
       ARRAY[format('pg_class %s 0', i.oid)] AS addresses
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class c ON c.oid = x.indrelid
CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.oid, 0, true) AS definition) d
WHERE c.relnamespace = 'public'::regnamespace
  AND c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x'));
