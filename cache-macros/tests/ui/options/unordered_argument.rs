use std::collections::HashSet;

use cache_runtime::cached;

#[cached(resource = "users")]
async fn with_roles(roles: &HashSet<String>) -> Vec<String> {
    roles.iter().cloned().collect()
}

fn main() {}
