-- Keys, checks, exclusions and foreign keys. NOT NULL is a property of its column, also where the catalog
-- holds it as a constraint.
SELECT format('CONSTRAINT %I ON %I', k.conname, c.relname) AS identity,
       format('TABLE %I', c.relname) AS owner,
       d.definition,
       -- A foreign key is written after all tables; a check inside CREATE TABLE is always valid.
       CASE WHEN k.contype <> 'f' AND k.convalidated
           THEN format('CONSTRAINT %I %s', k.conname, d.definition) END AS inline_sql,
       format('ALTER TABLE %I ADD CONSTRAINT %I %s', c.relname, k.conname, d.definition) AS create_sql,
       format('ALTER TABLE %I DROP CONSTRAINT %I', c.relname, k.conname) AS drop_sql,
       -- Who needs a key notes its index; that of a foreign key is the one it refers to.
       ARRAY[format('pg_constraint %s 0', k.oid),
             format('pg_class %s 0', CASE WHEN k.contype <> 'f' THEN k.conindid END)] AS addresses
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid, true) AS definition) d
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND k.contype IN ('p', 'u', 'x', 'c', 'f');
