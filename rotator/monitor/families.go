package monitor

// Family is one metric: all its series have this name, this type and these labels.
type Family struct {
	Name, Type, Help string
	Labels           []string
}

// Families returns every metric of ours, in the order of docs/monitoring.md.
func Families() []Family {
	const gauge, counter, histogram = "gauge", "counter", "histogram"
	token, sink := []string{"token"}, []string{"token", "sink"}
	return []Family{
		{"rotatord_token_breaks_timestamp_seconds", gauge, "When the first consumer is left with a dead token if every try fails until then; absent while nobody ever had one, or every sink waits for a person.", token},
		{"rotatord_token_expiry_timestamp_seconds", gauge, "When the newest token expires.", token},
		{"rotatord_token_planned_timestamp_seconds", gauge, "When its successor is due.", token},
		{"rotatord_token_created_timestamp_seconds", gauge, "When the newest token was created.", token},
		{"rotatord_token_overlap_seconds", gauge, "For how long predecessor and successor are both valid, as declared.", token},
		{"rotatord_token_margin_seconds", gauge, "The time kept for retries before any overlap is lost.", token},
		{"rotatord_token_state", gauge, "1 for the state that the entry is in, 0 for all others.", []string{"token", "state"}},
		{"rotatord_token_generation", gauge, "The number of the newest token; 0 is none.", token},
		{"rotatord_token_retiring", gauge, "Older tokens that are still alive.", token},
		{"rotatord_token_problems", gauge, "Problems of the entry, by kind; absent where there is none.", []string{"token", "kind"}},
		{"rotatord_token_failing_since_timestamp_seconds", gauge, "Since when something but a sink fails; absent where nothing does.", token},
		{"rotatord_token_paused_until_timestamp_seconds", gauge, "Until when a person paused it; absent where nobody did.", token},

		{"rotatord_sink_converged", gauge, "1 if the sink holds the newest token.", sink},
		{"rotatord_sink_held", gauge, "1 if the sink waits for a person.", sink},
		{"rotatord_sink_generation", gauge, "The number of the token that the sink holds; 0 is none.", sink},
		{"rotatord_sink_breaks_timestamp_seconds", gauge, "When the token that the sink holds dies; absent where it holds none of ours.", sink},
		{"rotatord_sink_last_push_timestamp_seconds", gauge, "When the sink was last found or made to hold what it holds.", sink},
		{"rotatord_sink_failed_tries", gauge, "Failures in a row.", sink},
		{"rotatord_sink_failing_since_timestamp_seconds", gauge, "When the first failure in a row was; absent where there is none.", sink},
		{"rotatord_sink_pushes_total", counter, "Pushes that the sink took.", sink},
		{"rotatord_sink_failures_total", counter, "Pushes and checks that failed.", sink},
		{"rotatord_sink_info", gauge, "Always 1: what the sink is.", []string{"token", "sink", "kind", "required"}},

		{"rotatord_problems", gauge, "Problems of all entries, by kind.", []string{"kind"}},
		{"rotatord_failing_problems", gauge, "Problems in which something fails now, as opposed to waiting for a person or being worth a look.", nil},
		{"rotatord_tokens", gauge, "Declared entries.", nil},
		{"rotatord_unmanaged_tokens", gauge, "Live tokens of entries that are no longer declared.", nil},
		{"rotatord_outages", gauge, "What many sinks need and that does not work now, like a Vault.", nil},
		{"rotatord_outage_waiting_tokens", gauge, "Entries that wait for the end of an outage.", nil},
		{"rotatord_list_last_success_timestamp_seconds", gauge, "When SiteGPT's list of tokens was last read whole.", nil},
		{"rotatord_list_unexplained_tokens", gauge, "Tokens with our mark that this state does not know.", nil},
		{"rotatord_list_other_instances_tokens", gauge, "Tokens that other instances of rotatord made.", nil},
		{"rotatord_list_foreign_tokens", gauge, "Tokens without a mark of rotatord.", nil},

		{"rotatord_creates_total", counter, "Creates that ended, by how they did.", []string{"outcome"}},
		{"rotatord_events_total", counter, "Events of the history, by kind.", []string{"event"}},
		{"rotatord_api_requests_total", counter, "Requests to SiteGPT.", []string{"operation", "outcome"}},
		{"rotatord_api_request_duration_seconds", histogram, "How long requests to SiteGPT took.", []string{"operation"}},
		{"rotatord_vault_requests_total", counter, "Requests to a Vault.", []string{"vault", "operation", "outcome"}},
		{"rotatord_vault_request_duration_seconds", histogram, "How long requests to a Vault took.", []string{"vault", "operation"}},

		{"rotatord_loop_lag_seconds", gauge, "How long ago the control loop last moved; absent in the file of a timer's pass.", nil},
		{"rotatord_loop_last_pass_timestamp_seconds", gauge, "When the control loop last moved, or a timer's pass ended.", nil},
		{"rotatord_loop_interval_seconds", gauge, "The distance between passes; absent where no timer promised one.", nil},
		{"rotatord_config_last_reload_successful", gauge, "1 if the configuration that was last read is in force.", nil},
		{"rotatord_config_last_reload_timestamp_seconds", gauge, "When the configuration was last read, with whatever outcome.", nil},
		{"rotatord_config_stands_in", gauge, "1 if the last accepted configuration runs, since the file was refused at the start.", nil},
		{"rotatord_management_token_expiry_timestamp_seconds", gauge, "When the management token in use expires; absent while nobody knows.", nil},
		{"rotatord_clock_offset_seconds", gauge, "What has to be added to this machine's clock to get SiteGPT's; absent while nobody knows.", nil},
		{"rotatord_build_info", gauge, "Always 1: what runs.", []string{"version", "go_version"}},
	}
}

func family(name string) Family {
	for _, f := range Families() {
		if f.Name == name {
			return f
		}
	}
	return Family{}
}
