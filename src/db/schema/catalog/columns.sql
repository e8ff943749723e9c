-- The type can be altered; whether and how a column is generated cannot, in every version we support, nor the type of one that
-- is: it takes no conversion, and what it is computed from would be written otherwise afterwards.
SELECT format('COLUMN %I.%I', c.relname, a.attname) AS identity,
       format('TABLE %I', c.relname) AS owner,
       a.attnum::integer AS position,
       t.type AS definition,
       coalesce(t.type || ' ' || g.generated, '') AS signature,
       concat_ws(' ', quote_ident(a.attname), t.type, g.generated) AS inline_sql,
       concat_ws(' ', format('ALTER TABLE %I ADD COLUMN %I %s', c.relname, a.attname, t.type), g.generated) AS create_sql,
       format('ALTER TABLE %I ALTER COLUMN %I TYPE %s USING %I::%s', c.relname, a.attname, t.type,
              a.attname, format_type(a.atttypid, a.atttypmod)) AS alter_sql,
       format('ALTER TABLE %I DROP COLUMN %I', c.relname, a.attname) AS drop_sql,
       -- What a generated column is computed from is noted at its expression.
       ARRAY[format('pg_class %s %s', c.oid, a.attnum),
             format('pg_attrdef %s 0', CASE WHEN a.attgenerated <> '' THEN d.oid END)] AS addresses
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_collation l ON l.oid = a.attcollation AND a.attcollation <> y.typcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
CROSS JOIN LATERAL (
    SELECT concat(format_type(a.atttypid, a.atttypmod), ' COLLATE ' || quote_ident(l.collname)) AS type) t
CROSS JOIN LATERAL (
    SELECT CASE a.attgenerated
        WHEN 's' THEN format('GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid, true))
        WHEN 'v' THEN format('GENERATED ALWAYS AS (%s) VIRTUAL', pg_get_expr(d.adbin, d.adrelid, true))
    END AS generated) g
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r';
