package pegasus.clients;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.thrift.protocol.TType;

/**
 * The fields of one structure of the protocol.
 *
 * <p>Written as {@code "1 key blob, 2 value blob, opt 3 expire_ts_seconds i32"}. Types: bool, byte, i32, i64, string,
 * map (string to string), blob, error_code, gpid, address, the name of another structure, and {@code list:} of one.
 */
final class Schema {
  record Field(short id, String name, String type, boolean optional) {}

  private static final Map<String, Schema> ALL = new HashMap<>();

  final String name;
  final List<Field> fields = new ArrayList<>();

  private Schema(String name, String text) {
    this.name = name;
    for (String one : text.isEmpty() ? new String[0] : text.split(", ")) {
      boolean optional = one.startsWith("opt ");
      String[] words = (optional ? one.substring(4) : one).split(" ");
      fields.add(new Field(Short.parseShort(words[0]), words[1], words[2], optional));
    }
  }

  private static void add(String name, String text) {
    ALL.put(name, new Schema(name, text));
  }

  static Schema of(String name) {
    Schema schema = ALL.get(name);
    if (schema == null) {
      throw new IllegalArgumentException("no structure " + name);
    }
    return schema;
  }

  Field field(short id) {
    return fields.stream().filter(one -> one.id == id).findFirst().orElse(null);
  }

  Field field(String field) {
    return fields.stream().filter(one -> one.name.equals(field)).findFirst()
        .orElseThrow(() -> new IllegalArgumentException("no field " + field + " in " + name));
  }

  /** The type that Thrift's field headers name. The special types say that they are structures. */
  static byte wireType(String type) {
    switch (type) {
      case "bool":
        return TType.BOOL;
      case "byte":
        return TType.BYTE;
      case "i32":
        return TType.I32;
      case "i64":
        return TType.I64;
      case "string":
        return TType.STRING;
      case "map":
        return TType.MAP;
      default:
        return type.startsWith("list:") ? TType.LIST : TType.STRUCT;
    }
  }

  static {
    String read = "app_id i32, 4 partition_index i32, 6 server string";
    add("meta", "1 app_id i32, 2 partition_index i32, 3 client_timeout i32, 4 partition_hash i64, "
        + "5 is_backup_request bool");
    add("key_value", "1 key blob, 2 value blob, opt 3 expire_ts_seconds i32");
    add("update_request", "1 key blob, 2 value blob, 3 expire_ts_seconds i32");
    add("update_response", "1 error i32, 2 app_id i32, 3 partition_index i32, 4 decree i64, 5 server string");
    add("read_response", "1 error i32, 2 value blob, 3 " + read);
    add("ttl_response", "1 error i32, 2 ttl_seconds i32, 3 " + read);
    add("count_response", "1 error i32, 2 count i64, 3 " + read);
    add("multi_put_request", "1 hash_key blob, 2 kvs list:key_value, 3 expire_ts_seconds i32");
    add("multi_remove_request", "1 hash_key blob, 2 sort_keys list:blob, 3 max_count i64");
    add("multi_remove_response",
        "1 error i32, 2 count i64, 3 app_id i32, 4 partition_index i32, 5 decree i64, 6 server string");
    add("multi_get_request", "1 hash_key blob, 2 sort_keys list:blob, 3 max_kv_count i32, 4 max_kv_size i32, "
        + "5 no_value bool, 6 start_sortkey blob, 7 stop_sortkey blob, 8 start_inclusive bool, "
        + "9 stop_inclusive bool, 10 filter_type i32, 11 filter_pattern blob, 12 reverse bool");
    add("multi_get_response", "1 error i32, 2 kvs list:key_value, 3 " + read);
    add("full_key", "1 hash_key blob, 2 sort_key blob");
    add("full_data", "1 hash_key blob, 2 sort_key blob, 3 value blob");
    add("batch_get_request", "1 keys list:full_key");
    add("batch_get_response", "1 error i32, 2 data list:full_data, 3 " + read);
    add("incr_request", "1 key blob, 2 increment i64, 3 expire_ts_seconds i32");
    add("incr_response",
        "1 error i32, 2 new_value i64, 3 app_id i32, 4 partition_index i32, 5 decree i64, 6 server string");
    add("check_and_set_request", "1 hash_key blob, 2 check_sort_key blob, 3 check_type i32, 4 check_operand blob, "
        + "5 set_diff_sort_key bool, 6 set_sort_key blob, 7 set_value blob, 8 set_expire_ts_seconds i32, "
        + "9 return_check_value bool");
    add("mutate", "1 operation i32, 2 sort_key blob, 3 value blob, 4 set_expire_ts_seconds i32");
    add("check_and_mutate_request", "1 hash_key blob, 2 check_sort_key blob, 3 check_type i32, "
        + "4 check_operand blob, 5 mutate_list list:mutate, 6 return_check_value bool");
    add("check_response", "1 error i32, 2 check_value_returned bool, 3 check_value_exist bool, 4 check_value blob, "
        + "5 app_id i32, 6 partition_index i32, 7 decree i64, 8 server string");
    add("get_scanner_request", "1 start_key blob, 2 stop_key blob, 3 start_inclusive bool, 4 stop_inclusive bool, "
        + "5 batch_size i32, 6 no_value bool, 7 hash_key_filter_type i32, 8 hash_key_filter_pattern blob, "
        + "9 sort_key_filter_type i32, 10 sort_key_filter_pattern blob, opt 11 validate_partition_hash bool, "
        + "opt 12 return_expire_ts bool, opt 13 full_scan bool, opt 14 only_return_count bool");
    add("scan_request", "1 context_id i64");
    add("scan_response", "1 error i32, 2 kvs list:key_value, 3 context_id i64, 4 app_id i32, 5 partition_index i32, "
        + "6 server string, opt 7 kv_count i32");
    add("query_cfg_request", "1 app_name string, 2 partition_indices list:i32");
    add("query_cfg_response", "1 err error_code, 2 app_id i32, 3 partition_count i32, 4 is_stateful bool, "
        + "5 partitions list:partition_configuration");
    // Fields 9 to 11 must not come: no old client can skip them.
    add("partition_configuration", "1 pid gpid, 2 ballot i64, 3 max_replica_count i32, 4 primary address, "
        + "5 secondaries list:address, 6 last_drops list:address, 7 last_committed_decree i64, opt 8 flags i32");
    administration();
  }

  private static void administration() {
    add("create_options", "1 partition_count i32, 2 replica_count i32, 3 success_if_exist bool, 4 app_type string, "
        + "5 is_stateful bool, 6 envs map, opt 7 atomic_idempotent bool");
    add("create_app_request", "1 app_name string, 2 options create_options");
    add("create_app_response", "1 err error_code, 2 appid i32");
    add("drop_options", "1 success_if_not_exist bool, opt 2 reserve_seconds i64");
    add("drop_app_request", "1 app_name string, 2 options drop_options");
    add("drop_app_response", "1 err error_code");
    add("recall_app_request", "1 app_id i32, 2 new_app_name string");
    add("app_info", "1 status i32, 2 app_type string, 3 app_name string, 4 app_id i32, 5 partition_count i32, "
        + "6 envs map, 7 is_stateful bool, 8 max_replica_count i32, 9 expire_second i64, 10 create_second i64, "
        + "11 drop_second i64, opt 12 duplicating bool, opt 13 init_partition_count i32, opt 14 is_bulk_loading bool, "
        + "opt 15 atomic_idempotent bool");
    add("recall_app_response", "1 err error_code, opt 2 info app_info");
    add("rename_app_request", "1 old_app_name string, 2 new_app_name string");
    add("rename_app_response", "1 err error_code, opt 2 hint_message string");
    add("list_apps_request", "1 status i32, opt 2 pattern string, opt 3 match_type i32");
    add("list_apps_response", "1 err error_code, 2 infos list:app_info, opt 3 hint_message string");
  }
}
