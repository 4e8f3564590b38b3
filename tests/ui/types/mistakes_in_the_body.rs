//! The compiler points into the body as if there were no attribute.

use cache_runtime::{cached, invalidates};

#[cached(resource = "users")]
async fn tail(id: i64) -> Result<String, std::fmt::Error> {
    id.to_string()
}

#[cached(resource = "users")]
async fn early(id: i64) -> Option<String> {
    if id == 0 {
        return "none";
    }
    let _: u8 = "x";
    Some(id.to_string());
}

#[invalidates("users")]
async fn question(id: &str) -> Result<i64, std::fmt::Error> {
    Ok(id.parse::<i64>()?)
}

fn main() {}
