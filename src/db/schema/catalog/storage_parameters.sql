-- Parameters such as fillfactor: of tables, and of the indexes behind keys. An index has its own in its definition.
SELECT format('%s (%s)', o.owner, split_part(p.parameter, '=', 1)) AS identity,
       o.owner,
       p.parameter AS definition,
       CASE WHEN c.relkind = 'r' THEN p.parameter END AS inline_sql,
       format('ALTER %s %I SET (%s)', o.kind, c.relname, p.parameter) AS create_sql,
       format('ALTER %s %I SET (%s)', o.kind, c.relname, p.parameter) AS alter_sql,
       format('ALTER %s %I RESET (%s)', o.kind, c.relname, split_part(p.parameter, '=', 1)) AS drop_sql
FROM pg_class c
LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_class t ON t.oid = k.conrelid
CROSS JOIN LATERAL unnest(c.reloptions) AS p (parameter)
CROSS JOIN LATERAL (SELECT CASE c.relkind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END AS kind,
                           CASE c.relkind WHEN 'r' THEN format('TABLE %I', c.relname)
                                ELSE format('CONSTRAINT %I ON %I', k.conname, t.relname) END AS owner) o
WHERE c.relnamespace = 'public'::regnamespace
  AND (c.relkind = 'r' OR k.oid IS NOT NULL);
