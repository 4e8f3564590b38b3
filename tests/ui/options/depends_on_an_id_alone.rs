use cache_runtime::cached;

#[cached(resource = "articles", depends(id = author))]
async fn page(article: i64, author: i64) -> Vec<String> {
    let _ = (article, author);
    Vec::new()
}

fn main() {}
