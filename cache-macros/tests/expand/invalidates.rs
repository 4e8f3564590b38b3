use cache_runtime::invalidates;

#[invalidates("users", id = id, "teams", on = ok)]
pub(crate) async fn rename(id: i64, mut name: String) -> Result<String, std::fmt::Error> {
    name.push_str(&id.to_string());
    Ok(name)
}
