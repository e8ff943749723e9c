SELECT format('TRIGGER %I ON %I', t.tgname, c.relname) AS identity,
       format('%s %I', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.relname) AS owner,
       d.definition,
       d.definition AS create_sql,
       format('DROP TRIGGER %I ON %I', t.tgname, c.relname) AS drop_sql,
       ARRAY[format('pg_trigger %s 0', t.oid)] AS addresses
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
LEFT JOIN (VALUES ('D', 'DISABLE'), ('R', 'ENABLE REPLICA'), ('A', 'ENABLE ALWAYS')) AS m (enabled, mode)
    ON m.enabled = t.tgenabled::text
CROSS JOIN LATERAL (
    SELECT concat_ws(E';\n', pg_get_triggerdef(t.oid, true),
                     CASE WHEN m.mode IS NOT NULL
                         THEN format('ALTER TABLE %I %s TRIGGER %I', c.relname, m.mode, t.tgname) END) AS definition) d
WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal;
