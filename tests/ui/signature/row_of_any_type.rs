use cache_runtime::cached;

trait Format {
    fn format(id: i64) -> String;
}

#[cached(resource = "views")]
async fn view<F: Format>(id: i64) -> String {
    F::format(id)
}

fn main() {}
