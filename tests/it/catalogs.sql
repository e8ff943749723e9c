-- Everything of the schema that the catalogs tell, apart from the table that records its revisions.
WITH described AS (
    SELECT 'column' AS kind, format('%s.%s', attrelid::regclass, attname) AS name,
        concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attgenerated, attidentity,
            (SELECT collname FROM pg_collation WHERE oid = attcollation), pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)) AS definition
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'relation', pg_class.oid::regclass::text, concat_ws(' ', relkind, reloptions, obj_description(pg_class.oid, 'pg_class'))
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'constraint', format('%s.%s', conrelid::regclass, conname), pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'
    UNION ALL
    SELECT 'function', oid::regprocedure::text, concat_ws(' ', pg_get_functiondef(oid), obj_description(oid, 'pg_proc'))
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', format('%s.%s', tgrelid::regclass, tgname), concat_ws(' ', pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger'))
    FROM pg_trigger WHERE NOT tgisinternal
)
SELECT kind, name, definition FROM described
WHERE name NOT LIKE '\_sqlx\_migrations%'
ORDER BY kind, name
