SELECT format('COLUMN %I.%I NOT NULL', c.relname, a.attname) AS identity,
       format('COLUMN %I.%I', c.relname, a.attname) AS owner,
       'NOT NULL' AS definition,
       'NOT NULL' AS inline_sql,
       format('ALTER TABLE %I ALTER COLUMN %I SET NOT NULL', c.relname, a.attname) AS create_sql,
       format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', c.relname, a.attname) AS drop_sql,
       ARRAY[format('not null %s %s', c.oid, a.attnum)] AS addresses
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r';
