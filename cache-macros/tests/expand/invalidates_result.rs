use cache_runtime::invalidates;

struct Users;

impl Users {
    #[invalidates("users", id = result.len())]
    async fn create(&self, name: &str) -> Result<String, String> {
        Ok(name.to_owned())
    }
}
