-- Every cell of some markets, freshness marks aside. OFFSET 0 keeps each look on its own, so that the
-- views read the flights of one market and not of all.
SELECT m.relation, m.key, c.name, c.value
FROM unnest($1::text[], $2::text[], $3::date[]) AS market (origin, destination, data_date)
CROSS JOIN LATERAL (
    SELECT 'market_data' AS relation,
           ARRAY[d.origin, d.destination, d.data_date::text] AS key,
           to_jsonb(d) - ARRAY['origin', 'destination', 'data_date', 'last_event_at', 'updated_at'] AS cells
    FROM market_data d
    WHERE (d.origin, d.destination, d.data_date) = (market.origin, market.destination, market.data_date)
    UNION ALL
    SELECT 'market_fares',
           ARRAY[f.origin, f.destination, f.data_date::text, f.cabin, f.currency],
           to_jsonb(f) - ARRAY['origin', 'destination', 'data_date', 'cabin', 'currency']
    FROM market_fares f
    WHERE (f.origin, f.destination, f.data_date) = (market.origin, market.destination, market.data_date)
    UNION ALL
    SELECT 'market_activity',
           ARRAY[a.origin, a.destination, a.data_date::text, a.activity_date::text, a.cabin, a.currency],
           to_jsonb(a) - ARRAY['origin', 'destination', 'data_date', 'activity_date', 'cabin', 'currency']
    FROM market_activity a
    WHERE (a.origin, a.destination, a.data_date) = (market.origin, market.destination, market.data_date)
    OFFSET 0
) m
CROSS JOIN LATERAL jsonb_each_text(m.cells) AS c (name, value)
