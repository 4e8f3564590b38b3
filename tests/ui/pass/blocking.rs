//! Functions that are not `async`.

use cache_runtime::cached;

pub struct Templates(Vec<String>);

impl Templates {
    #[cached(resource = "templates", ttl = "1h", max_loads = 4)]
    pub fn get(&self, name: &str) -> Result<Option<String>, std::fmt::Error> {
        let found = self.0.iter().find(|it| *it == name);
        if name.is_empty() {
            return Err(std::fmt::Error);
        }
        Ok(found.cloned())
    }

    #[cached(resource = "templates", op = "count", context = load)]
    pub fn count(&self) -> usize {
        load.ttl(5);
        self.0.len()
    }
}

#[cached(resource = "templates", op = "named")]
fn named<T: Clone + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(
    value: T,
) -> Option<T> {
    Some(value)
}

pub fn main() {
    let templates = Templates(vec!["a".to_owned()]);
    assert_eq!(templates.get("a"), Ok(Some("a".to_owned())));
    assert!(templates.get("").is_err());
    assert_eq!(templates.count(), 1);
    assert_eq!(named(7), Some(7));
}
