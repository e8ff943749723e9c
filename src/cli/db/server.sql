SELECT session_user::text AS user_name,
    split_part(current_setting('server_version'), ' ', 1) AS server_version,
    current_setting('max_connections')::integer AS max_connections,
    current_setting('superuser_reserved_connections')::integer
        + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::integer AS reserved_connections
