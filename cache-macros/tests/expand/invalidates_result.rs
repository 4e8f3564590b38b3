use cache_runtime::invalidates;

struct Users;

impl Users {
    #[invalidates("users", id = (team, result.len()), rejected = |e| e.is_empty())]
    async fn create(&self, team: String, name: &str) -> Result<String, String> {
        if name.is_empty() {
            return Err(team);
        }
        Ok(name.to_owned())
    }
}
