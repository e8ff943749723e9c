//! Any values: a configuration or an error that names a setting, and never a password.

use proptest::prelude::*;

use super::{Config, SETTINGS};

const PASSWORD: &str = "canary-password";

fn any_value() -> impl Strategy<Value = String> {
    let url = (
        prop::sample::select(vec!["postgres", "postgresql", "amqp", "amqps", "http", ""]),
        "[a-z0-9.:/?&=%@\\[\\]-]{0,40}|\\PC{0,20}",
    );
    prop_oneof![
        any::<String>(),
        any::<i64>().prop_map(|number| number.to_string()),
        prop::sample::select(
            SETTINGS
                .iter()
                .map(|s| s.default.to_owned())
                .collect::<Vec<_>>()
        ),
        url.prop_map(|(scheme, rest)| format!("{scheme}://joe:{PASSWORD}@{rest}")),
    ]
}

proptest! {
    #[test]
    fn any_environment_is_read_or_refused_without_a_password(
        values in prop::collection::vec((prop::sample::select(SETTINGS.to_vec()), any_value()), 1..4),
    ) {
        let read = Config::from_lookup(|name| {
            let given = values.iter().find(|(setting, _)| setting.name == name);
            // Only a URL is a secret.
            let shown = if name.ends_with("_URL") { PASSWORD } else { "shown" };
            given.map(|(_, value)| value.replace(PASSWORD, shown))
        });
        let said = match &read {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error:?}"),
        };
        prop_assert!(!said.contains(PASSWORD), "{}", said);
        let named = SETTINGS.iter().any(|setting| said.contains(setting.name));
        prop_assert!(read.is_ok() || named, "{}", said);
    }
}
