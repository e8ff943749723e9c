-- A view can be replaced in place while its first columns stay.
SELECT format('VIEW %I', c.relname) AS identity,
       d.definition,
       (SELECT string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod), ' COLLATE ' || l.collname),
                          ', ' ORDER BY a.attnum)
        FROM pg_attribute a
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE a.attrelid = c.oid AND a.attnum > 0) AS signature,
       format('CREATE VIEW %I%s', c.relname, d.definition) AS create_sql,
       format('CREATE OR REPLACE VIEW %I%s', c.relname, d.definition) AS alter_sql,
       format('DROP VIEW %I', c.relname) AS drop_sql,
       -- What a view reads is noted at its rule; whoever uses its columns or row type uses the view.
       ARRAY[format('pg_class %s 0', c.oid), format('pg_type %s 0', c.reltype),
             format('pg_type %s 0', (SELECT t.typarray FROM pg_type t WHERE t.oid = c.reltype))]
           || (SELECT array_agg(format('pg_rewrite %s 0', r.oid)) FROM pg_rewrite r WHERE r.ev_class = c.oid)
           || (SELECT array_agg(format('pg_class %s %s', c.oid, a.attnum)) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0) AS addresses
FROM pg_class c
CROSS JOIN LATERAL (
    SELECT concat(' WITH (' || array_to_string(c.reloptions, ', ') || ')', E' AS\n',
                  rtrim(pg_get_viewdef(c.oid, true), ';')) AS definition) d
WHERE c.relnamespace = 'public'::regnamespace
  AND c.relkind = 'v'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
