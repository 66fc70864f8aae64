import com.recall.v1.ItemQuery;
import com.recall.v1.RecallServiceGrpc.RecallServiceBlockingStub;
import com.recall.v1.SimilarItems;
import com.recall.v1.SimilarItemsRequest;
import com.recall.v1.SimilarItemsResponse;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Items like each of some items, 10 for each, within 500 ms: java Similar localhost:50051 500 10 50 181,174. */
public final class Similar {
  /** Up to topK similar items for every query, in order; the time includes retries. */
  static SimilarItemsResponse similarItems(
      RecallServiceBlockingStub stub, List<ItemQuery> queries, int topK, long timeoutMs) {
    SimilarItemsRequest request = SimilarItemsRequest.newBuilder().setTopK(topK).addAllQueries(queries).build();
    return stub.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS).similarItems(request);
  }

  public static void main(String[] args) throws Exception {
    long timeoutMs = Long.parseLong(args[1]);
    Recall.run(
        args[0],
        stub -> {
          boolean text = Recall.hasTextIds(Recall.serverInfo(stub, timeoutMs));
          List<ItemQuery> queries = Arrays.stream(args).skip(3).map(ids -> query(Recall.split(ids), text)).toList();
          print(similarItems(stub, queries, Integer.parseInt(args[2]), timeoutMs));
        });
  }

  private static ItemQuery query(List<String> ids, boolean text) {
    ItemQuery.Builder query = ItemQuery.newBuilder();
    return (text ? query.addAllItemKeys(ids) : query.addAllItemIds(ids.stream().map(Long::valueOf).toList())).build();
  }

  private static void print(SimilarItemsResponse answer) {
    for (int query = 0; query < answer.getResultsCount(); query++) {
      SimilarItems similar = answer.getResults(query);
      System.out.println(("query " + query + ": " + similar.getStatus() + " " + similar.getDetail()).strip());
      List<?> ids = similar.getItemKeysCount() > 0 ? similar.getItemKeysList() : similar.getItemIdsList();
      for (int i = 0; i < ids.size(); i++) {
        System.out.printf("  %s  cosine %.4f%n", ids.get(i), similar.getScores(i));
      }
    }
  }
}
