use cache_runtime::cached;

struct Connection;
type Source = Connection;

#[cached(resource = "users", skip(source))]
async fn get(source: &mut Source, id: i64) -> Option<String> {
    let _ = source;
    Some(id.to_string())
}

fn main() {}
