//! Any environment becomes a configuration or an error, and no text about it has a password.
//!
//! The input is lines of NAME=value; a URL gets a user with a password.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use paxflow::broker;
use paxflow::config::{Config, Secret};

const PASSWORD: &str = "canary-password";

fuzz_target!(|input: &str| {
    if input.contains(PASSWORD) {
        return;
    }
    let mut variables = HashMap::new();
    for (name, value) in input.lines().filter_map(|line| line.split_once('=')) {
        let value = value.replacen("://", &format!("://user:{PASSWORD}@"), 1);
        variables.insert(name, value);
    }
    // A file that a setting names could be one that never ends.
    let read = Config::from_lookup(|name| {
        let is_file = name.ends_with("_FILE");
        variables.get(name).filter(|_| !is_file).cloned()
    });
    let said = match read {
        Ok(config) => format!("{config:?}"),
        Err(error) => format!("{error:?} {error:#}"),
    };
    assert!(!said.contains(PASSWORD), "{said}");
    if let Some(url) = variables.get("AMQP_URL") {
        let said = broker::address(&Secret::new(url.as_str()));
        assert!(!said.contains(PASSWORD), "{said}");
    }
});
