use cache_runtime::invalidates;

trait Executor<'e> {}

#[invalidates("users", id = id)]
async fn delete<C>(connection: &mut C, id: i64) -> Result<(), String>
where
    for<'e> &'e mut C: Executor<'e>,
{
    let _ = connection;
    Err(id.to_string())
}

fn main() {}
