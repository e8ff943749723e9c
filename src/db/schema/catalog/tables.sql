-- Plain tables; the migrator's own table is not part of the schema.
SELECT format('TABLE %I', c.relname) AS identity,
       p.persistence AS definition,
       format('CREATE %s %I', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED TABLE' ELSE 'TABLE' END, c.relname) AS create_sql,
       format('ALTER TABLE %I SET %s', c.relname, p.persistence) AS alter_sql,
       format('DROP TABLE %I', c.relname) AS drop_sql,
       -- Whoever uses the row type or its array uses the table.
       ARRAY[format('pg_class %s 0', c.oid), format('pg_type %s 0', c.reltype),
             format('pg_type %s 0', (SELECT t.typarray FROM pg_type t WHERE t.oid = c.reltype))] AS addresses
FROM pg_class c
CROSS JOIN LATERAL (SELECT CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END AS persistence) p
WHERE c.relnamespace = 'public'::regnamespace
  AND c.relkind = 'r'
  AND c.relname <> '_sqlx_migrations'
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
