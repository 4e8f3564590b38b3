use cache_runtime::cached;

struct Team;

#[cached(resource = "users", tags("team:{team}"), skip(team))]
async fn of_team(team: &Team) -> Option<String> {
    let Team = team;
    None
}

fn main() {}
