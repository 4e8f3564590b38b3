use cache_runtime::cached;

#[cached(resource = "squares", op = "square")]
const fn square(n: u64) -> u64 {
    n * n
}

fn main() {}
