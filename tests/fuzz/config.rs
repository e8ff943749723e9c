//! Any environment becomes a configuration or an error, and no text about it has a password.
//!
//! The input is lines of NAME=value; a URL gets a user with a password.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use paxflow::broker;
use paxflow::config::Config;

const PASSWORD: &str = "canary-password";

fuzz_target!(|input: &str| {
    if input.contains(PASSWORD) {
        return;
    }
    let mut variables = HashMap::new();
    for (name, value) in input.lines().filter_map(|line| line.split_once('=')) {
        // Only a URL is a secret, where it has a scheme and then a user.
        let value = match value.split_once("://") {
            Some((scheme, rest)) if name.ends_with("_URL") && !scheme.contains(['/', '?', '#']) => {
                format!("{scheme}://user:{PASSWORD}@{rest}")
            }
            _ => value.to_owned(),
        };
        variables.insert(name, value);
    }
    // A file that a setting names could be one that never ends.
    let read = Config::from_lookup(|name| {
        let is_file = name.ends_with("_FILE");
        variables.get(name).filter(|_| !is_file).cloned()
    });
    let said = match read {
        Ok(config) => {
            let broker = config.amqp_url().map(broker::address);
            format!("{config:?} {}", broker.unwrap_or_default())
        }
        Err(error) => format!("{error:?} {error:#}"),
    };
    assert!(!said.contains(PASSWORD), "{said}");
});
