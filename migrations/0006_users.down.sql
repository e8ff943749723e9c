DROP TABLE user_sessions;
DROP TABLE user_api_keys;
DROP TABLE users;
