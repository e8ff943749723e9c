-- People and programs that read MarketData through an application. Secrets are stored as hashes only.

CREATE TABLE users (
    user_id       bigint GENERATED ALWAYS AS IDENTITY,
    email         text NOT NULL,
    display_name  text NOT NULL,
    password_hash text,
    role          text NOT NULL DEFAULT 'analyst',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (user_id),
    CONSTRAINT users_role CHECK (role IN ('analyst', 'operator', 'admin'))
);
-- One account per address, however it is capitalised.
CREATE UNIQUE INDEX users_email ON users (lower(email));

COMMENT ON TABLE users IS 'People who may sign in.';
COMMENT ON COLUMN users.user_id IS 'Key.';
COMMENT ON COLUMN users.email IS 'Address to sign in with; unique without regard to case.';
COMMENT ON COLUMN users.display_name IS 'Name to show.';
COMMENT ON COLUMN users.password_hash IS 'Argon2id hash in PHC string form; NULL for accounts without a password.';
COMMENT ON COLUMN users.role IS 'analyst, operator or admin.';
COMMENT ON COLUMN users.created_at IS 'When the account was made.';
COMMENT ON COLUMN users.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN users.disabled_at IS 'Since when it may not sign in; NULL while it may.';

CREATE TABLE user_api_keys (
    api_key_id    bigint GENERATED ALWAYS AS IDENTITY,
    user_id       bigint NOT NULL,
    name          text NOT NULL,
    prefix        text NOT NULL,
    secret_sha256 bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    CONSTRAINT user_api_keys_pkey PRIMARY KEY (api_key_id),
    CONSTRAINT user_api_keys_prefix UNIQUE (prefix),
    CONSTRAINT user_api_keys_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
-- The keys of a user.
CREATE INDEX user_api_keys_user_id ON user_api_keys (user_id);

COMMENT ON TABLE user_api_keys IS 'Keys with which programs act for a user.';
COMMENT ON COLUMN user_api_keys.api_key_id IS 'Key.';
COMMENT ON COLUMN user_api_keys.user_id IS 'Whose key it is.';
COMMENT ON COLUMN user_api_keys.name IS 'What the user calls it.';
COMMENT ON COLUMN user_api_keys.prefix IS 'Public part, to find the key by.';
COMMENT ON COLUMN user_api_keys.secret_sha256 IS 'SHA-256 of the secret part.';
COMMENT ON COLUMN user_api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN user_api_keys.expires_at IS 'When it ends; NULL for never.';
COMMENT ON COLUMN user_api_keys.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN user_api_keys.revoked_at IS 'When it was revoked; NULL while it is good.';

CREATE TABLE user_sessions (
    session_id   bigint GENERATED ALWAYS AS IDENTITY,
    user_id      bigint NOT NULL,
    token_sha256 bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    CONSTRAINT user_sessions_pkey PRIMARY KEY (session_id),
    CONSTRAINT user_sessions_token UNIQUE (token_sha256),
    CONSTRAINT user_sessions_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
-- The sessions of a user.
CREATE INDEX user_sessions_user_id ON user_sessions (user_id);

COMMENT ON TABLE user_sessions IS 'Signed-in sessions.';
COMMENT ON COLUMN user_sessions.session_id IS 'Key.';
COMMENT ON COLUMN user_sessions.user_id IS 'Who is signed in.';
COMMENT ON COLUMN user_sessions.token_sha256 IS 'SHA-256 of the session token.';
COMMENT ON COLUMN user_sessions.created_at IS 'When it began.';
COMMENT ON COLUMN user_sessions.last_seen_at IS 'When it was last used.';
COMMENT ON COLUMN user_sessions.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN user_sessions.revoked_at IS 'When it was ended; NULL while it is good.';
