-- A function can be replaced in place while its signature stays.
SELECT format('%s %I(%s)', k.kind, p.proname, oidvectortypes(p.proargtypes)) AS identity,
       d.definition,
       concat('(', pg_get_function_arguments(p.oid), ') ', pg_get_function_result(p.oid)) AS signature,
       format('CREATE %s %s', k.kind, d.definition) AS create_sql,
       format('CREATE OR REPLACE %s %s', k.kind, d.definition) AS alter_sql,
       format('DROP %s %I(%s)', k.kind, p.proname, oidvectortypes(p.proargtypes)) AS drop_sql,
       ARRAY[format('pg_proc %s 0', p.oid)] AS addresses
FROM pg_proc p
CROSS JOIN LATERAL (SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind) k
CROSS JOIN LATERAL (
    SELECT regexp_replace(rtrim(pg_get_functiondef(p.oid), E'\n'), '^CREATE OR REPLACE \w+ public\.', '') AS definition) d
WHERE p.pronamespace = 'public'::regnamespace
  AND p.prokind IN ('f', 'p')
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e');
