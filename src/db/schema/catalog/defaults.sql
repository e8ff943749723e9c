SELECT format('COLUMN %I.%I DEFAULT', c.relname, a.attname) AS identity,
       format('COLUMN %I.%I', c.relname, a.attname) AS owner,
       e.value AS definition,
       format('DEFAULT %s', e.value) AS inline_sql,
       format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %s', c.relname, a.attname, e.value) AS create_sql,
       format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %s', c.relname, a.attname, e.value) AS alter_sql,
       format('ALTER TABLE %I ALTER COLUMN %I DROP DEFAULT', c.relname, a.attname) AS drop_sql,
       ARRAY[format('pg_attrdef %s 0', d.oid)] AS addresses
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
CROSS JOIN LATERAL (SELECT pg_get_expr(d.adbin, d.adrelid, true) AS value) e
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r';
